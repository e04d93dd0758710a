# Mean Teacher, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled). The network, data and schedule are
# those of the iMAS configs, not of the paper (docs/mean_teacher.md). Therefore the supervised baselines
# (suponly_*) differ only in the unlabeled images. 4 GPUs with 4 + 4 images each.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_imas.py',
    '../_base_/datasets/voc12_semi_color.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/mean_teacher_runtime.py',
]
# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after each
# epoch.
model = dict(
    _delete_=True,
    type='MeanTeacher',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        consistency_weight=1.0,
        rampup_epochs=3,  # as PixelSSL's
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
