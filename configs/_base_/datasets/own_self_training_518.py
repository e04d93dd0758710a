# As own_self_training.py with the crops of own_semi_518.py, for DINOv2.
_base_ = ['./own_semi_518.py', './strong_augmentation.py']

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
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='ShuffledSampler', endless=True),
    dataset=dict(
        type='SelfTrainingDataset',
        labeled=dict(
            type='BaseSegDataset',
            data_root=_base_.data_root,
            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            pipeline=_base_.train_pipeline,
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(
                type='UnlabeledDataset',
                data_root=_base_.data_root,
                img_dir='img_dir/unlabeled',
            ),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
