# UniMatch V2, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_semi_color.py',
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
    # The settings differ from those for pre-trained weights. From scratch, a high threshold selects only the
    # large classes, and the training collapses. Therefore the threshold is lower, the training starts
    # supervised, and the supervised loss has weight 1.
    semi_train_cfg=dict(
        tau=0.5, labeled_weight=1.0, unlabeled_weight=0.5, unlabeled_start_fraction=1 / 3
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
train_cfg = dict(max_iters=900, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
