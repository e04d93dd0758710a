# Pascal VOC 2012 with labeled images only. train_dataloader.dataset.partition names their list.
dataset_type = 'PascalVOCDataset'
data_root = 'data/VOCdevkit/VOC2012'
crop_size = (513, 513)
# Blue, green, red: the mean that the models' preprocessors subtract, rounded to whole gray levels.
mean_color = (104, 116, 124)

# Resize, flip, crop, pad, in iMAS's order. With a square scale and keep_ratio, the longer side becomes int(500
# * r), r uniform in [0.5, 2): whole numbers from 250 to 999. Where the crop is larger than the image, it is
# padded at the bottom and at the right with the mean color and label 255. Strong augmentation follows the
# padding, so that autocontrast and equalize include it.
geometry = [
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='Pad', size=crop_size[::-1], pad_val=dict(img=mean_color, seg=255)),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *geometry,
    dict(type='PackSegInputs'),
]
# Whole images at their own size, as the papers evaluate (the VOC configs of MMSegmentation resize to 2048 x
# 512).
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# Only for `tools/test.py --tta`. No published result uses it.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.5, 0.75, 1.0, 1.5)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

unlabeled_images = dict(
    type='UnlabeledDataset',
    img_dir='JPEGImages',
    img_suffix='.jpg',
    ann_file='splits/{partition}/unlabeled.txt',
)
# CheckedDataset is the dataset class that `of` names, with a clear error if files are missing.
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CheckedDataset',
        of=dataset_type,
        partition='classic/1464',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
        ann_file='splits/{partition}/labeled.txt',
        counted=unlabeled_images,  # an epoch is a pass over these
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CheckedDataset',
        of=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# One confusion matrix for the whole set, without void.
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
