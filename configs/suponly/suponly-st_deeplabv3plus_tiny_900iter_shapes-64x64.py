# Supervised only, the first stage of ST and ST++, 40 synthetic images, from scratch on a CPU.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_self_training.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(dataset=dict(pseudo_labeled=None))
train_cfg = dict(max_iters=900, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
auto_scale_lr = dict(base_batch_size=8)
