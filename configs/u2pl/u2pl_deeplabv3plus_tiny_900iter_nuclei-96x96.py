# U2PL, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
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
        representation=dict(channels=32, out_channels=32),
        queue_size=1000,
        background_queue_size=2000,
        keys_per_step=128,
        num_negatives=64,
        # Three classes: an unlabeled pixel is a negative of its least probable class.
        low_rank=2,
        # From scratch: a weight below 1, little contrast, and a supervised start.
        unlabeled_weight=0.5,
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
train_cfg = dict(max_iters=900, val_interval=900)
default_hooks = dict(checkpoint=dict(interval=300))
