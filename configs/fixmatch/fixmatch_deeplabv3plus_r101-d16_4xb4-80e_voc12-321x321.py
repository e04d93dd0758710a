# FixMatch, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled): as FixMatch is trained in the code of
# UniMatch. 4 GPUs with 2 + 2 images each.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_unimatch.py',
    '../_base_/datasets/voc12_unimatch.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='FixMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # The loss is half of the sum of both losses.
    semi_train_cfg=dict(tau=0.95, labeled_weight=0.5, unlabeled_weight=0.5),
    semi_test_cfg=dict(predict_on='student'),
)
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
