# CorrMatch, VOC animals: the 222 labeled images of classic 732.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0.py',
    '../_base_/datasets/voc_animals_semi_color.py',
    '../_base_/schedules/adamw_poly_pretrained.py',
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
    # A lower threshold than with pre-trained weights on VOC, and a supervised start.
    semi_train_cfg=dict(tau_start=0.6, unlabeled_start_fraction=1 / 3),
    semi_test_cfg=dict(predict_on='student'),
)
train_cfg = dict(max_iters=1200, val_interval=1200)
default_hooks = dict(checkpoint=dict(interval=400))
