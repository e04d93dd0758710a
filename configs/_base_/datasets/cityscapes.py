# Cityscapes with labeled images only. train_dataloader.dataset.partition names their list.
dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes'
img_suffix = '_leftImg8bit.png'
seg_map_suffix = '_gtFine_labelTrainIds.png'
crop_size = (769, 769)
# Blue, green, red: the mean that the models' preprocessors subtract, rounded to whole gray levels.
mean_color = (104, 116, 124)

# Resize, flip, crop, pad, in iMAS's order. At scales below 0.751, the crop is higher than the image. Then it is
# padded at the bottom with the mean color and label 255, before the strong augmentation.
geometry = [
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
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
# At the original size of 1024 x 2048. The model predicts in sliding windows (test_cfg).
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
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.5)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

unlabeled_images = dict(
    type='UnlabeledDataset',
    img_dir='leftImg8bit/train',
    img_suffix=img_suffix,
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
        partition='u2pl/372',
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
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
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# One confusion matrix for all 500 images, without void.
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
