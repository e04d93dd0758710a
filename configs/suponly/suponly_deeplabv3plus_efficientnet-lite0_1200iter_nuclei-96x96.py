# Supervised only, nuclei with ImageNet weights: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0_nuclei.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=8)
