# ESL, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/esl_runtime.py',
]
model = dict(
    _delete_=True,
    type='ESL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        # A small network: fewer and narrower vectors, and no extra segmentation head.
        segmentation_head=None,
        projector=dict(channels=64, out_channels=64),
        queue_size=50,
        num_negatives=63,
        # From scratch: a supervised start, after which pixels are assigned to parts.
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
