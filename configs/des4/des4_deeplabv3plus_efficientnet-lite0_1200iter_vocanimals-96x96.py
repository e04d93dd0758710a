# DeS4, VOC animals: the 222 labeled images of classic 732.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0.py',
    '../_base_/datasets/voc_animals_semi.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
    '../_base_/runtime/des4_runtime.py',
]
model = dict(
    _delete_=True,
    type='DeS4',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # A supervised start and a low weight, since every pixel has a pseudo-label.
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
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
