# CPS, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of CPS).
#
# The length, the settings and the results are those of the GPS paper, which compares GPS with CPS. Published
# mIoU: R50 76.61, R101 77.62.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_cps_cityscapes.py',
    '../_base_/datasets/cityscapes_cps.py',
    '../_base_/schedules/sgd_poly_cps.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='CPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # From the authors' code with CutMix (charlesCXK/TorchSemiSeg). Without CutMix, it is 6.
    semi_train_cfg=dict(cutmix='pair', cps_weight=5.0),
    semi_test_cfg=dict(predict_on='student1'),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))

# An epoch is a pass over the unlabeled images. An iteration trains on 8 of them. The model is evaluated and
# saved after every fourth epoch.
train_cfg = dict(
    type='UnlabeledEpochTrainLoop',
    epochs={
        'cps/186': 128,
        'cps/372': 137,
        'cps/744': 160,
        'cps/1488': 240,
    },
    val_every=4,
)
default_hooks = dict(checkpoint=dict(interval='val'))
