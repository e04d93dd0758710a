# GPS on images of your own, one GPU, MMSegmentation's stock DeepLabv3+ with ImageNet weights: See "Your own
# data" in README.md for the settings to add. 20,000 iterations for the teacher, then 20,000 for all three
# networks. To save memory, set semi_train_cfg.recompute=True.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_own.py',
    '../_base_/datasets/own_semi.py',
    '../_base_/schedules/sgd_poly_cps.py',
    '../_base_/runtime/gps_runtime.py',
]
model = dict(
    _delete_=True,
    type='GPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    # No dropout: the networks make pseudo-labels in train mode.
    segmentor=dict(_base_.model, decode_head=dict(_base_.model.decode_head, dropout_ratio=0)),
    semi_train_cfg=dict(
        cutmix='in_batch',
        alpha=0.5,
        beta=1.5,
        gamma=0.5,
        ignore_padding=True,
        joint_forward=True,
    ),
    semi_test_cfg=dict(predict_on='student1'),
)
# The learning rate of the teacher is constant: the last one of its own training.
param_scheduler = dict(
    _delete_=True,
    students=_base_.param_scheduler,
    teacher=[dict(type='FinalPolyLR', power=0.9, by_epoch=False)],
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
# The learning rate of the schedule is for training on 8 labeled and 8 unlabeled images per step. This config
# trains on 4 and 4.
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
