# Supervised only on labeled images of your own, one GPU, DINOv3 ViT-S with a DPT head: the baseline of
# imas_dpt_dinov3-s16_1xb8-20k_own-512x512.py, which has the same labeled images per batch, learning rates and
# length.
_base_ = [
    '../_base_/models/dpt_dinov3-s16.py',
    '../_base_/datasets/own.py',
    '../_base_/schedules/adamw_poly_dinov2.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
optim_wrapper = dict(optimizer=dict(lr=1.25e-06))
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
