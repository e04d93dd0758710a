# Synthetic shapes for self-training: 40 labeled images and 500 images with pseudo-labels.
_base_ = ['./shapes.py', './strong_augmentation.py']

pseudo_labeled_pipeline = [
    dict(type='LoadShapes'),
    dict(type='LoadAnnotations'),
    *_base_.geometry,
    *_base_.strong,
    dict(type='PackSegInputs'),
]

# Each stage sets the pseudo-labels that it trains on: pseudo_labeled=dict(labels=[folders]), or None.
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='ShuffledSampler', endless=True),
    dataset=dict(
        type='SelfTrainingDataset',
        labeled=dict(
            type=_base_.dataset_type,
            image_size=_base_.image_size,
            seed=0,
            start=0,
            num_images=40,
            pipeline=_base_.train_pipeline,
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(
                type=_base_.dataset_type,
                labeled=False,
                image_size=_base_.image_size,
                seed=0,
                start=40,
                num_images=500,
            ),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
