# Pascal VOC 2012 with labeled and unlabeled images. train_dataloader.dataset.partition names
# the two lists.
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
    batch_size=8,  # per GPU: labeled + unlabeled of the sampler
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=4, unlabeled=4, endless=True),
    collate_fn=dict(type='collate_branches'),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        partition='classic/1464',
        labeled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
            ann_file='splits/{partition}/labeled.txt',
            pipeline=_base_.train_pipeline,
        ),
        unlabeled=dict(
            _base_.unlabeled_images, data_root=_base_.data_root, pipeline=unlabeled_pipeline
        ),
    ),
)
