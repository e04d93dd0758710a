# DeS4, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/des4_runtime.py',
]
model = dict(
    _delete_=True,
    type='DeS4',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # From scratch: a supervised start and a low weight, since every pixel has a pseudo-label.
    semi_train_cfg=dict(unlabeled_weight=0.25, unlabeled_start_fraction=1 / 3),
    # On the tuning images of nuclei, the student predicts better (docs/results_settings.md).
    semi_test_cfg=dict(predict_on='student'),
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
