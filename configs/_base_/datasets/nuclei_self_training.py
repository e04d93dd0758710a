# Nuclei for self-training. train_dataloader.dataset.partition names the
# two lists.
_base_ = ['./nuclei.py', './strong_augmentation.py']

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
        partition='l8_0',
        labeled=dict(
            _base_.images, ann_file='lists/{partition}/labeled.txt', pipeline=_base_.train_pipeline
        ),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset',
            images=dict(
                type='UnlabeledDataset',
                data_root=_base_.data_root,
                img_dir='img',
                img_suffix='.jpg',
                ann_file='lists/{partition}/unlabeled.txt',
            ),
            pipeline=pseudo_labeled_pipeline,
        ),
    ),
)
