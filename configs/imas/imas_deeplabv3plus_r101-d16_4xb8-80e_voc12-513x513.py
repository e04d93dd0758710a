# iMAS, paper reading, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled images). 4 GPUs with 4 + 4
# images each: hardness, pairs and the CutMix trigger use the 4 unlabeled images of one GPU.
#
# Where the paper and the released code differ, this config follows the paper: Eq. 6 sums over all classes, the
# decay of the teacher is constant, and the intensity operations have the ranges of the paper. The imas-official
# configs follow the code. The learning rates are from the code in both readings.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_imas.py',
    '../_base_/datasets/voc12_semi.py',
    '../_base_/schedules/sgd_poly_voc12.py',
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
        tau=0.95,
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

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
