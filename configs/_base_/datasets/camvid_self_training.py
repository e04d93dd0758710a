# CamVid at 128 x 96 for self-training. train_dataloader.dataset.partition names the
# two lists.
_base_ = ['./camvid.py', './strong_augmentation.py']

pseudo_labeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *_base_.geometry,
    *_base_.strong,
    dict(type='PackSegInputs'),
]

# Each stage sets the pseudo-labels that it trains on: pseudo_labeled=dict(labels=[folders]), or None.
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='ShuffledSampler', endless=True),
    dataset=dict(
        type='SelfTrainingDataset',
        partition='1_8/seed0',
        labeled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
            ann_file='splits/{partition}/labeled.txt',
            pipeline=_base_.train_pipeline,
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(
                type='UnlabeledDataset',
                data_root=_base_.data_root,
                img_dir='img_dir/train',
                img_suffix='.jpg',
                ann_file='splits/{partition}/unlabeled.txt',
            ),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
