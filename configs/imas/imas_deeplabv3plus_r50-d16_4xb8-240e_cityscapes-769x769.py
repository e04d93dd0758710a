# iMAS, paper reading, Cityscapes 1/8 (372 labeled, 2603 unlabeled images, lists of U2PL). 4 GPUs with 4 + 4
# images each: hardness, pairs, the CutMix trigger and hard example mining use the images of one GPU.
#
# Where the paper and the released code differ, this config follows the paper: Eq. 6 sums over all classes, the
# decay of the teacher is constant, and the intensity operations have the ranges of the paper. The imas-official
# configs follow the code. Hard example mining and the auxiliary head are only in the code. Both readings and
# the supervised baseline use them.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_imas_cityscapes.py',
    '../_base_/datasets/cityscapes_semi.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='IMAS',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        tau=0.7,
        unlabeled_weight=3.0,
        ignore_background=False,
        ignore_padding=True,  # padding gets no pseudo-labels and is not counted
        weak_in_joint_forward=False,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    # The decay is constant. The running statistics are averaged in the same way.
    dict(type='MeanTeacherHook', decay=0.996, warmup='none', buffers='average'),
]

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=240, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
