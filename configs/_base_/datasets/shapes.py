# Synthetic shapes, 6 classes, drawn on the fly, without files. All sets come from one random stream: the first
# 40 images are labeled, the next 500 are unlabeled, and the others are for validation. Change `seed` in all
# sets to get other images.
dataset_type = 'ShapesDataset'
image_size = (64, 64)
crop_size = (64, 64)

geometry = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='RandomCrop', crop_size=crop_size),  # as large as the images: nothing is padded
]
train_pipeline = [dict(type='LoadShapes'), *geometry, dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadShapes'), dict(type='PackSegInputs')]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        image_size=image_size,
        seed=0,
        start=0,
        num_images=40,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        image_size=image_size,
        seed=0,
        start=10000,
        num_images=200,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
