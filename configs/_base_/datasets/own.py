# The labeled images of own_semi.py only, with the same number of labeled images per step.
_base_ = './own_semi.py'
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=_base_.train_dataloader.dataset.labeled,
)
