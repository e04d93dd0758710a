# CPS, VOC 1/8 (1323 labeled, 9259 unlabeled, blender lists of CPS).
#
# The length, the settings and the results are those of the GPS paper, which compares GPS with CPS. Published
# mIoU: R50 73.67, R101 76.44.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_imas.py',
    '../_base_/datasets/voc12_cps.py',
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
    # From the authors' code with CutMix (charlesCXK/TorchSemiSeg). Without CutMix, it is 1.5.
    semi_train_cfg=dict(cutmix='pair', cps_weight=1.0),
    semi_test_cfg=dict(predict_on='student1'),
)

# An epoch is a pass over the unlabeled images. An iteration trains on 8 of them. The model is evaluated and
# saved after each epoch.
train_cfg = dict(
    type='UnlabeledEpochTrainLoop',
    epochs={
        'blender-cps/662': 32,
        'blender-cps/1323': 34,
        'blender-cps/2646': 40,
        'blender-cps/5291': 60,
    },
    val_every=1,
)
default_hooks = dict(checkpoint=dict(interval='val'))
