# FixMatch, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of CPS, which UniMatch also uses): as FixMatch is
# trained in the code of UniMatch. 4 GPUs with 2 + 2 images each.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_unimatch_cityscapes.py',
    '../_base_/datasets/cityscapes_unimatch.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='FixMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # No threshold: all pixels are used. The loss is half of the sum of both losses.
    semi_train_cfg=dict(tau=0.0, labeled_weight=0.5, unlabeled_weight=0.5),
    semi_test_cfg=dict(predict_on='student'),
)
optim_wrapper = dict(optimizer=dict(lr=0.005, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=240, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
train_dataloader = dict(dataset=dict(partition='cps/372'))
