# CorrMatch, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled): the settings of the authors' code. 4
# GPUs with 2 + 2 images each, the same batch as the 2 GPUs with 4 + 4 images of the code.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_corrmatch.py',
    '../_base_/datasets/voc12_unimatch.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CorrMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_test_cfg=dict(predict_on='student'),
)
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
