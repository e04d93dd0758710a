# Pascal VOC 2012 with labelled and unlabelled images. Partitions set the two lists, ann_file of each child.
_base_ = './voc12.py'

unlabeled_pipeline = [
    dict(type='LoadImageFromFile'),
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
    batch_size=8,  # of one process: labeled + unlabeled of the sampler
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=4, unlabeled=4, endless=True),
    collate_fn=dict(type='collate_branches'),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        labeled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
            ann_file='splits/classic/1464/labeled.txt',
            pipeline=_base_.train_pipeline,
        ),
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=_base_.data_root,
            img_dir='JPEGImages',
            img_suffix='.jpg',
            ann_file='splits/classic/1464/unlabeled.txt',
            pipeline=unlabeled_pipeline,
        ),
    ),
)
