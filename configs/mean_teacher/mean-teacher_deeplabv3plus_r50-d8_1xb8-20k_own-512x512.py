# Mean Teacher on images of your own, one GPU, MMSegmentation's stock DeepLabv3+ with ImageNet weights: See
# "Your own data" in README.md for the settings to add.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_own.py',
    '../_base_/datasets/own_semi_color.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/mean_teacher_runtime.py',
]
model = dict(
    _delete_=True,
    type='MeanTeacher',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(consistency_weight=1.0, rampup_steps=3000),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=0.00025))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
