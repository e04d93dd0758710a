# FixMatch, VOC animals: the 222 labeled images of classic 732.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0.py',
    '../_base_/datasets/voc_animals_semi_color.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='FixMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # A moderate threshold, a low weight and a supervised start; pseudo-labels in eval mode, and one forward
    # pass for all views, because a small batch needs their batch statistics.
    semi_train_cfg=dict(
        tau=0.6,
        unlabeled_weight=0.25,
        unlabeled_start_fraction=1 / 3,
        label_mode='eval',
        joint_forward=True,
    ),
    semi_test_cfg=dict(predict_on='student'),
)
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
