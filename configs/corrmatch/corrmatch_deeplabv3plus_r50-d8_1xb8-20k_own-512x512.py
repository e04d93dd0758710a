# CorrMatch on images of your own, one GPU, MMSegmentation's stock DeepLabv3+ with ImageNet weights: See "Your
# own data" in README.md for the settings to add.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_own.py',
    '../_base_/datasets/own_semi_color.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CorrMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    # No dropout, as in the authors' network: it makes pseudo-labels in train mode.
    segmentor=dict(
        _base_.model,
        decode_head=dict(_base_.model.decode_head, dropout_ratio=0),
        auxiliary_head=dict(_base_.model.auxiliary_head, dropout_ratio=0),
    ),
    semi_test_cfg=dict(predict_on='student'),
)
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=0.00025))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
