# FixMatch, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare.
# The strong view is that of iMAS, which is weaker than color jitter and grayscale.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='FixMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # The settings differ from those for pre-trained weights: a lower threshold and weight, a supervised start,
    # pseudo-labels in eval mode, and one forward pass for all views, because a small batch needs their batch
    # statistics.
    semi_train_cfg=dict(
        tau=0.5,
        unlabeled_weight=0.5,
        unlabeled_start_fraction=1 / 3,
        label_mode='eval',
        joint_forward=True,
    ),
    semi_test_cfg=dict(predict_on='student'),
)
train_cfg = dict(max_iters=900, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
