# U2PL on images of your own, one GPU, MMSegmentation's stock DeepLabv3+ with ImageNet weights: See "Your own
# data" in README.md for the settings to add.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_own.py',
    '../_base_/datasets/own_semi.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/u2pl_runtime.py',
]
model = dict(
    _delete_=True,
    type='U2PL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        # With two or three classes, rank 3 does not exist. With more classes, set 3, as in the paper.
        low_rank=1,
        ignore_padding=True,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=0.00025))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
