# CorrMatch, nuclei: 8 labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_tiny_nuclei.py',
    '../_base_/datasets/nuclei_semi_color.py',
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
train_cfg = dict(max_iters=900, val_interval=900)
default_hooks = dict(checkpoint=dict(interval=300))
