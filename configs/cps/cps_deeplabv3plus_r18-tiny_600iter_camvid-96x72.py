# CPS, CamVid 1/16 at 128 x 96, from scratch: a quick check on one CPU core that the method learns, not a
# benchmark.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-tiny_camvid.py',
    '../_base_/datasets/camvid_semi.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    # No dropout: the networks make pseudo-labels in train mode.
    segmentor=dict(_base_.model, decode_head=dict(_base_.model.decode_head, dropout_ratio=0)),
    # From scratch: a supervised start and a low weight, since every pixel has a pseudo-label.
    semi_train_cfg=dict(
        cutmix='in_batch', cps_weight=0.5, unlabeled_start_fraction=1 / 3, joint_forward=True
    ),
    semi_test_cfg=dict(predict_on='student1'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=200))
