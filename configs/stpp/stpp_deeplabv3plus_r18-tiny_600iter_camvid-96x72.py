# ST++, CamVid 1/8 at 128 x 96, from scratch: a quick check on one CPU core that the method learns, not a
# benchmark. 600 iterations per training.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-tiny_camvid.py',
    '../_base_/datasets/camvid_self_training.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/stpp_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=200))
auto_scale_lr = dict(base_batch_size=8)
