# Cityscapes for self-training. train_dataloader.dataset.partition names the
# two lists.
_base_ = ['./cityscapes.py', './strong_augmentation.py']
crop_size = (721, 721)

# Resize, pad, crop, flip, in the order of ST++'s code. Like that code, it pads with black at the bottom and at
# the right before the normalization. The label of the padding is 255.
geometry = [
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
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
pseudo_labeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *geometry,
    *_base_.strong,
    dict(type='PackSegInputs'),
]

# Each stage sets the pseudo-labels that it trains on: pseudo_labeled=dict(labels=[folders]), or None.
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=6,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ShuffledSampler'),
    dataset=dict(
        type='SelfTrainingDataset',
        partition='stpp/372',
        labeled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
            img_suffix=_base_.img_suffix,
            seg_map_suffix=_base_.seg_map_suffix,
            ann_file='splits/{partition}/labeled.txt',
            pipeline=train_pipeline,
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(_base_.unlabeled_images, data_root=_base_.data_root),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
