# Mean Teacher, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi_color.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/mean_teacher_runtime.py',
]
model = dict(
    _delete_=True,
    type='MeanTeacher',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # From scratch: a low weight, after a supervised start.
    semi_train_cfg=dict(consistency_weight=0.2, unlabeled_start_fraction=1 / 3, rampup_steps=200),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
train_cfg = dict(max_iters=900, val_interval=900)
default_hooks = dict(checkpoint=dict(interval=300))
