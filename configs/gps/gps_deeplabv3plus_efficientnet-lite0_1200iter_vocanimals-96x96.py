# GPS, VOC animals: the 222 labeled images of classic 732. 1200 iterations for the teacher, then 1200 for all
# three networks.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0.py',
    '../_base_/datasets/voc_animals_semi.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
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
    # A supervised start and low weights, since every pixel has a pseudo-label.
    semi_train_cfg=dict(
        cutmix='in_batch',
        alpha=0.5,
        beta=0.5,
        gamma=0.5,
        unlabeled_start_fraction=1 / 3,
        joint_forward=True,
    ),
    semi_test_cfg=dict(predict_on='student1'),
)
# The learning rate of the teacher is constant: the last one of a poly schedule, lr * S^-0.9 for S iterations.
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
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
