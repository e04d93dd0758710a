# iMAS, paper reading, CamVid 1/16 (23 labeled, 344 unlabeled), from scratch on one GPU. Another draw: --cfg-
# options train_dataloader.dataset.partition=1_16/seed1.
_base_ = [
    '../_base_/models/deeplabv3plus_r18_camvid.py',
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
    # The settings differ from those for pre-trained weights, where a high threshold selects correct pixels:
    # from scratch it selects only the large classes and the run collapses. So: a lower threshold, a weight of
    # 1, and a supervised start.
    semi_train_cfg=dict(tau=0.7, unlabeled_weight=1.0, unlabeled_start=2000),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.996, warmup='ratio', buffers='average'),
]
train_cfg = dict(max_iters=10000, val_interval=1000)
