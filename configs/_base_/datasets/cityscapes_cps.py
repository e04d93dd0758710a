# Cityscapes with the scales, crop, padding and lists of the code of CPS. 2 labeled and 4 unlabeled images on
# each of 4 GPUs. CutMix pastes the second 2 unlabeled images into the first 2, so that an iteration trains on 8
# + 8 images. In an epoch, each image is used once and pasted once.
_base_ = ['./cityscapes_semi.py', './cps_augmentation.py']
crop_size = (800, 800)
geometry = [*_base_.scale_and_flip, dict(type='RandomCrop', crop_size=crop_size)]
train_pipeline = [*_base_.train_pipeline[:2], *geometry, dict(type='PackSegInputs')]
# CutMix is the only strong augmentation.
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:2],
    *geometry,
    dict(type='PackUnlabeledInputs'),
]
train_dataloader = dict(
    batch_size=6,
    sampler=dict(labeled=2, unlabeled=4, unlabeled_streams=2),
    dataset=dict(
        partition='cps/372',
        labeled=dict(pipeline=train_pipeline),
        unlabeled=dict(pipeline=unlabeled_pipeline),
    ),
)
