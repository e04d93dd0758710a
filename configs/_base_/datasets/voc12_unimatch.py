# As voc12_semi.py, with the crops, padding and strong view of UniMatch's code, and its batch on 4 GPUs.
_base_ = ['./voc12_semi.py', './strong_augmentation.py']
crop_size = (321, 321)

# Resize, pad, crop, flip. Like the code, it pads with black at the bottom and at the right before the
# normalization. The label of the padding is 255.
geometry = [
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    # (width, height). The crop is square.
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *geometry,
    dict(type='PackSegInputs'),
]
unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='AddValidMask'),
    *geometry,
    dict(
        type='MultiBranch',
        weak=[dict(type='PackUnlabeledInputs')],
        strong=[*_base_.color, dict(type='PackUnlabeledInputs')],
    ),
]
train_dataloader = dict(
    batch_size=4,  # per GPU: labeled + unlabeled of the sampler
    sampler=dict(labeled=2, unlabeled=2),
    dataset=dict(
        labeled=dict(pipeline=train_pipeline), unlabeled=dict(pipeline=unlabeled_pipeline)
    ),
)
