# DeS4, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_semi.py',
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
    # From scratch: a supervised start and a weight below the paper's 1.5, since every pixel has a pseudo-label.
    # The temperature is lower, because the prototypes of a small network are close together.
    semi_train_cfg=dict(temperature=0.05, unlabeled_weight=1.0, unlabeled_start_fraction=1 / 3),
    semi_test_cfg=dict(predict_on='teacher'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
train_cfg = dict(max_iters=900, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
