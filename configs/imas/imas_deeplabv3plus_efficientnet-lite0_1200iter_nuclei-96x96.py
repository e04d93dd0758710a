# iMAS, paper reading, nuclei with ImageNet weights: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0_nuclei.py',
    '../_base_/datasets/nuclei_semi.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='IMAS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # A moderate threshold, a low loss weight and a supervised start.
    semi_train_cfg=dict(
        tau=0.6, unlabeled_weight=0.25, unlabeled_start_fraction=1 / 3, adjust_logits=True
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
