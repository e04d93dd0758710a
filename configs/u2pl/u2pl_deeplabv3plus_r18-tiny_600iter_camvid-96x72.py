# U2PL, CamVid 1/16 at 128 x 96, from scratch: a quick check on one CPU core that the method learns, not a
# benchmark.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-tiny_camvid.py',
    '../_base_/datasets/camvid_semi.py',
    '../_base_/schedules/adamw_poly.py',
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
        # A small network: fewer and narrower vectors.
        representation=dict(channels=64, out_channels=64),
        queue_size=1000,
        background_queue_size=2000,
        keys_per_step=128,
        num_negatives=64,
        # From scratch: a low weight, little contrast, and a supervised start.
        unlabeled_weight=0.25,
        contrast_weight=0.02,
        unlabeled_start_fraction=1 / 3,
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
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=200))
