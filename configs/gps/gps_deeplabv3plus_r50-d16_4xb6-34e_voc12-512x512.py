# GPS, VOC 1/8 (1323 labeled, 9259 unlabeled, blender lists of CPS).
#
# The settings are the paper's. Settings that the paper does not give (crop, decay, network) are CPS's. Before,
# the teacher is trained on the labeled images for the same number of iterations. Published mIoU of one student:
# R50 75.72, R101 77.56.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_imas.py',
    '../_base_/datasets/voc12_cps.py',
    '../_base_/schedules/sgd_poly_cps.py',
    '../_base_/runtime/gps_runtime.py',
]
model = dict(
    _delete_=True,
    type='GPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(cutmix='pair', alpha=0.5, beta=1.5, gamma=0.5),
    semi_test_cfg=dict(predict_on='student1'),
)
# The learning rate of the teacher is constant: the last one of a poly schedule, lr * S^-0.9 for S iterations.
param_scheduler = dict(
    _delete_=True,
    students=_base_.param_scheduler,
    teacher=[dict(type='FinalPolyLR', power=0.9, by_epoch=False)],
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
