# VOC animals for self-training. Partitions set the two lists: ann_file of `labeled` and of
# `pseudo_labeled.images`.
_base_ = ['./voc_animals.py', './strong_augmentation.py']

pseudo_labeled_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    *_base_.geometry,
    *_base_.strong,
    dict(type='PackSegInputs'),
]

# Each stage says which pseudo-labels it trains on: pseudo_labeled=dict(labels=[folders]), or None.
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='ShuffledSampler', endless=True),
    dataset=dict(
        type='SelfTrainingDataset',
        labeled=dict(
            _base_.images, ann_file='lists/classic_732/labeled.txt', pipeline=_base_.train_pipeline
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(
                type='UnlabeledDataset',
                data_root=_base_.data_root,
                img_dir='img',
                img_suffix='.jpg',
                ann_file='lists/classic_732/unlabeled.txt',
            ),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
