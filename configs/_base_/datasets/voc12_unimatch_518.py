# As voc12_unimatch.py with crops of 518 x 518, 37 patches of 14 pixels a side, for DINOv2,
# two strong views, and the batch of UniMatch V2's code on 4 GPUs.
_base_ = './voc12_unimatch.py'
crop_size = (518, 518)
geometry = [
    *_base_.geometry[:1],
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    *_base_.geometry[3:],
]
train_pipeline = [*_base_.train_pipeline[:2], *geometry, *_base_.train_pipeline[-1:]]
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:2],
    *geometry,
    dict(_base_.unlabeled_pipeline[-1], strong2=_base_.unlabeled_pipeline[-1].strong),
]
train_dataloader = dict(
    batch_size=8,  # per GPU: labeled + unlabeled of the sampler
    sampler=dict(labeled=4, unlabeled=4),
    dataset=dict(
        labeled=dict(pipeline=train_pipeline), unlabeled=dict(pipeline=unlabeled_pipeline)
    ),
)
