# GPS, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of CPS).
#
# The settings are the paper's. Settings that the paper does not give (crop, decay, network, windows) are CPS's.
# Before, the teacher is trained on the labeled images for the same number of iterations. Published mIoU of one
# student: R50 77.32, R101 77.79.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_cps_cityscapes.py',
    '../_base_/datasets/cityscapes_cps.py',
    '../_base_/schedules/sgd_poly_cps.py',
    '../_base_/runtime/gps_runtime.py',
]
model = dict(
    _delete_=True,
    type='GPS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=dict(
        _base_.model,
        decode_head=dict(
            _base_.model.decode_head,
            # Plain cross-entropy, as in the paper. The code of CPS, and the base, use hard example mining.
            loss_decode=dict(_base_.model.decode_head.loss_decode, ohem=None),
        ),
    ),
    semi_train_cfg=dict(cutmix='pair', alpha=1.0, beta=5.0, gamma=1.0),
    semi_test_cfg=dict(predict_on='student1'),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
# The learning rate of the teacher is constant: the last one of a poly schedule, lr * S^-0.9 for S iterations.
param_scheduler = dict(
    _delete_=True,
    students=_base_.param_scheduler,
    teacher=[dict(type='FinalPolyLR', power=0.9, by_epoch=False)],
)

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
