# iMAS, paper reading, CamVid 1/16 at 128 x 96, from scratch: a quick check on one CPU core that the method
# learns, not a benchmark.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-tiny_camvid.py',
    '../_base_/datasets/camvid_semi.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='IMAS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # The settings differ from those of the paper. From scratch, a high threshold selects only the
    # large classes, and the training collapses. Therefore this config has a lower threshold, a low weight and a
    # supervised start.
    semi_train_cfg=dict(tau=0.6, unlabeled_weight=0.25, unlabeled_start_fraction=1 / 3),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=200))
