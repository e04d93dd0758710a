# Your own data: a folder of labeled images and a folder of unlabeled images (README, "Your own data"). Masks
# hold class indices, 255 = void. Layout below data_root:   img_dir/{train,val,unlabeled}/NAME.jpg   or jpeg,
# png, bmp, tif, tiff, webp; img_suffix is for labeled images
#   ann_dir/{train,val}/NAME.png
data_root = 'data/own'
crop_size = (512, 512)
# Blue, green, red: the mean that the models' preprocessors subtract, rounded to whole gray levels.
mean_color = (104, 116, 124)

geometry = [
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    # Where the crop is larger than the image, it is padded before the strong augmentation. Pad takes (width,
    # height).
    dict(type='Pad', size=crop_size[::-1], pad_val=dict(img=mean_color, seg=255)),
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
        strong=[dict(type='RandomIntensity', ranges='paper'), dict(type='PackUnlabeledInputs')],
    ),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
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

train_dataloader = dict(
    batch_size=8,  # labeled + unlabeled of the sampler
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=4, unlabeled=4, endless=True),
    collate_fn=dict(type='collate_branches'),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        labeled=dict(
            type='BaseSegDataset',
            data_root=data_root,
            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            pipeline=train_pipeline,
        ),
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=data_root,
            img_dir='img_dir/unlabeled',
            pipeline=unlabeled_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CheckedDataset',
        of='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
