# CorrMatch, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare. The
# strong view is that of iMAS, which is weaker than color jitter and grayscale.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny.py',
    '../_base_/datasets/shapes_semi.py',
    '../_base_/schedules/adamw_poly_warmup.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CorrMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    # No dropout: the network makes pseudo-labels in train mode.
    segmentor=dict(_base_.model, decode_head=dict(_base_.model.decode_head, dropout_ratio=0)),
    # A lower threshold, and a supervised start.
    semi_train_cfg=dict(tau_start=0.6, unlabeled_start_fraction=1 / 3),
    semi_test_cfg=dict(predict_on='student'),
)
train_cfg = dict(max_iters=900, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
