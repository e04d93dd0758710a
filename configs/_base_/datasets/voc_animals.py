# VOC animals, 7 classes at 128 pixels on the longer side, labeled images only.
# train_dataloader.dataset.partition names their list. The data are in data/voc_animals, or in
# the folder $VOC_ANIMALS_ROOT.
dataset_type = 'VOCAnimalsDataset'
data_root = '{{$VOC_ANIMALS_ROOT:data/voc_animals}}'
# Transforms take (height, width) for a crop and (width, height) for a scale. Here, a scale is the longer side.
crop_size = (96, 96)
mean_color = (104, 116, 124)  # blue, green, red
scale = (128, 128)

geometry = [
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    # The shorter side can be below the crop, so it is padded before the strong augmentation.
    dict(type='Pad', size=crop_size[::-1], pad_val=dict(img=mean_color, seg=255)),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *geometry,
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The image is resized before the labels are loaded, so that predictions are compared at the size of the
    # labels.
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# Only for `tools/test.py --tta`.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(s, s), keep_ratio=True) for s in (96, 128, 160)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

images = dict(
    type=dataset_type, data_root=data_root, data_prefix=dict(img_path='img', seg_map_path='mask')
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        images,
        type='CheckedDataset',
        of=dataset_type,
        partition='classic_732',
        ann_file='lists/{partition}/labeled.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(images, ann_file='splits/val_voc.txt', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
