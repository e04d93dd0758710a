# ST, CamVid 1/16 (23 labeled), from scratch on one GPU. 10000 iterations per training.
_base_ = [
    '../_base_/models/deeplabv3plus_r18_camvid.py',
    '../_base_/datasets/camvid_self_training.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/st_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_cfg = dict(max_iters=10000, val_interval=1000)
auto_scale_lr = dict(base_batch_size=8)
