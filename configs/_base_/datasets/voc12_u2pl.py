# Pascal VOC 2012 with the augmentation of U2PL's code: half of the images are shrunk and half are enlarged, by
# a factor of up to two. CutMix is the only strong augmentation.
_base_ = './voc12_semi.py'
geometry = [
    dict(type='RandomShrinkOrEnlarge', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    *_base_.geometry[1:],
]
train_pipeline = [*_base_.train_pipeline[:2], *geometry, dict(type='PackSegInputs')]
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:2],
    *geometry,
    dict(type='PackUnlabeledInputs'),
]
train_dataloader = dict(
    dataset=dict(
        labeled=dict(pipeline=train_pipeline),
        unlabeled=dict(pipeline=unlabeled_pipeline),
    )
)
