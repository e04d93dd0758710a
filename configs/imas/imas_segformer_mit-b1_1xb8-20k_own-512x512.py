# iMAS, paper reading, on images of your own, one GPU, SegFormer-B1: See "Your own data" in README.md for the
# settings to add.
_base_ = [
    '../_base_/models/segformer_mit-b1.py',
    '../_base_/datasets/own_semi.py',
    '../_base_/schedules/adamw_poly_segformer.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='IMAS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # For few labels and short trainings: docs/results.md has what they gain and lose. The paper has tau=0.95
    # and a weight of 3.
    semi_train_cfg=dict(
        tau=0.6, unlabeled_weight=0.25, unlabeled_start_fraction=1 / 3, adjust_logits=True
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    # With fewer than 3000 steps, use decay=0.99 (600 steps: 0.98), so that the teacher averages over fewer.
    dict(type='MeanTeacherHook', decay=0.996, warmup='ratio'),
]
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=1.5e-05))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
