# ESL, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/esl_runtime.py',
]
model = dict(
    _delete_=True,
    type='ESL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        # A small network: fewer and narrower vectors, and no extra segmentation head.
        segmentation_head=None,
        projector=dict(channels=32, out_channels=32),
        queue_size=50,
        num_negatives=63,
        # The settings differ from those for pre-trained weights. From scratch, the teacher is uncertain for a
        # long time, and soft labels with 0.95 of its probability contain many classes. Therefore the share is
        # lower, its weight is higher, and the contrast is low. After a supervised start, pixels are assigned to
        # parts.
        eta=0.6,
        soft_weight=1.0,
        contrast_weight=0.02,
        unlabeled_start_fraction=1 / 2,
    ),
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
