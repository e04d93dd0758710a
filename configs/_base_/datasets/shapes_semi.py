# Synthetic shapes: 40 labeled and 500 unlabeled images.
_base_ = './shapes.py'

unlabeled_pipeline = [
    dict(type='LoadShapes'),
    dict(type='AddValidMask'),
    *_base_.geometry,
    dict(
        type='MultiBranch',
        weak=[dict(type='PackUnlabeledInputs')],
        strong=[dict(type='RandomIntensity', ranges='paper'), dict(type='PackUnlabeledInputs')],
    ),
]

train_dataloader = dict(
    _delete_=True,
    batch_size=16,  # labeled + unlabeled of the sampler
    num_workers=0,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=8, unlabeled=8, endless=True),
    collate_fn=dict(type='collate_branches'),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        labeled=dict(
            type=_base_.dataset_type,
            image_size=_base_.image_size,
            seed=0,
            start=0,
            num_images=40,
            pipeline=_base_.train_pipeline,
        ),
        unlabeled=dict(
            type=_base_.dataset_type,
            labeled=False,
            image_size=_base_.image_size,
            seed=0,
            start=40,
            num_images=500,
            pipeline=unlabeled_pipeline,
        ),
    ),
)
