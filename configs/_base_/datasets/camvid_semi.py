# CamVid at 128 x 96 with labeled and unlabeled images. train_dataloader.dataset.partition names
# the two lists.
_base_ = './camvid.py'

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
    batch_size=16,  # labeled + unlabeled of the sampler
    num_workers=0,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=8, unlabeled=8, endless=True),
    collate_fn=dict(type='collate_branches'),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        partition='1_16/seed0',
        labeled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
            ann_file='splits/{partition}/labeled.txt',
            pipeline=_base_.train_pipeline,
        ),
        unlabeled=dict(
            type='UnlabeledDataset',
            data_root=_base_.data_root,
            img_dir='img_dir/train',
            img_suffix='.jpg',
            ann_file='splits/{partition}/unlabeled.txt',
            pipeline=unlabeled_pipeline,
        ),
    ),
)
