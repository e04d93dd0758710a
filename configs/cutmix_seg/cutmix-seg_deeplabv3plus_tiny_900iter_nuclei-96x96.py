# CutMix-Seg, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CutMixSeg',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # From scratch: after a supervised start.
    semi_train_cfg=dict(tau=0.97, consistency_weight=1.0, unlabeled_start_fraction=1 / 3),
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
train_cfg = dict(max_iters=900, val_interval=900)
default_hooks = dict(checkpoint=dict(interval=300))
