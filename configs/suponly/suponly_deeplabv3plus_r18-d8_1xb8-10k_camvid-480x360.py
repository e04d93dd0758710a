# Supervised only, CamVid 1/16 (23 labeled), from scratch on one GPU. Another draw: --cfg-options
# train_dataloader.dataset.partition=1_16/seed1.
_base_ = [
    '../_base_/models/deeplabv3plus_r18_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_cfg = dict(max_iters=10000, val_interval=1000)
auto_scale_lr = dict(base_batch_size=8)
