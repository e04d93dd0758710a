# UniMatch V2, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi_color.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='UniMatchV2',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # From scratch, a high threshold selects only the large classes, and the training collapses. Therefore the
    # threshold is lower, the training starts supervised, the supervised loss has weight 1, and class shares are
    # aligned.
    semi_train_cfg=dict(
        tau=0.6,
        labeled_weight=1.0,
        unlabeled_weight=0.25,
        unlabeled_start_fraction=1 / 3,
        align_distribution=True,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # A second strong view with the same transforms as the first.
            pipeline=[
                *_base_.unlabeled_pipeline[:-1],
                dict(_base_.unlabeled_pipeline[-1], strong2=_base_.unlabeled_pipeline[-1].strong),
            ]
        )
    )
)
train_cfg = dict(max_iters=900, val_interval=900)
default_hooks = dict(checkpoint=dict(interval=300))
