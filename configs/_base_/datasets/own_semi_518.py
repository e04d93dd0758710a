# As own_semi.py with crops of 518 x 518, 37 patches of 14 pixels a side, for DINOv2. Test images are resized to
# a shorter side of 518, and the model's data_preprocessor pads them to whole patches.
_base_ = './own_semi.py'
crop_size = (518, 518)

geometry = [
    dict(type='RandomResize', scale=(2072, 518), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(_base_.geometry[-1], size=crop_size),  # a square
]
train_pipeline = [*_base_.train_pipeline[:2], *geometry, *_base_.train_pipeline[-1:]]
unlabeled_pipeline = [*_base_.unlabeled_pipeline[:2], *geometry, *_base_.unlabeled_pipeline[-1:]]
test_pipeline = [
    *_base_.test_pipeline[:1],
    dict(type='Resize', scale=(2072, 518), keep_ratio=True),
    *_base_.test_pipeline[2:],
]

train_dataloader = dict(
    dataset=dict(labeled=dict(pipeline=train_pipeline), unlabeled=dict(pipeline=unlabeled_pipeline))
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
