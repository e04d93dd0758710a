# ST++ on images of your own, one GPU, MMSegmentation's stock DeepLabv3+ with ImageNet weights: See
# "Self-training on images of your own" in docs/configs.md for the settings to add. 20000 iterations per
# training, three trainings.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_own.py',
    '../_base_/datasets/own_self_training.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/stpp_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
# The learning rate of ST++, 0.001, is for 16 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=0.0005))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
