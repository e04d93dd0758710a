# CutMix-Seg, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of U2PL). The network, data and schedule are
# those of the iMAS configs, not of the paper (docs/mean_teacher.md). Therefore the supervised baselines
# (suponly_*) differ only in the unlabeled images. 4 GPUs with 4 + 4 images each.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_imas_cityscapes.py',
    '../_base_/datasets/cityscapes_semi.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CutMixSeg',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(tau=0.97, consistency_weight=1.0),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='none', buffers='average'),
]
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=240, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
