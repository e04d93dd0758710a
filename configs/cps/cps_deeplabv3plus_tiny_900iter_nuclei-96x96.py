# CPS, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    # No dropout: the networks make pseudo-labels in train mode.
    segmentor=dict(_base_.model, decode_head=dict(_base_.model.decode_head, dropout_ratio=0)),
    # From scratch: a supervised start and a low weight, since every pixel has a pseudo-label.
    semi_train_cfg=dict(
        cutmix='in_batch', cps_weight=0.5, unlabeled_start_fraction=1 / 3, joint_forward=True
    ),
    semi_test_cfg=dict(predict_on='student1'),
)
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
