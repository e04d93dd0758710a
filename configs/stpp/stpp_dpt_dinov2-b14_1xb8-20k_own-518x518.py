# ST++ on images of your own, one GPU, DINOv2-B with a DPT head: See "Self-training on images of your own" in
# docs/configs.md for the settings to add. 20000 iterations per training, three trainings.
_base_ = [
    '../_base_/models/dpt_dinov2-b14.py',
    '../_base_/datasets/own_self_training_518.py',
    '../_base_/schedules/adamw_poly_dinov2.py',
    '../_base_/runtime/stpp_runtime.py',
]
custom_imports = dict(imports=['mmseg_semi', 'mmpretrain.models'])
model = dict(data_preprocessor=dict(size=_base_.crop_size))
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=1.25e-06))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
