# iMAS, Cityscapes 1/8 (372 labelled, 2603 unlabelled, lists of U2PL), and the lead of the other
# Cityscapes configs here. 4 GPUs with 4 + 4 images each: hardness, pairs, the CutMix trigger and
# hard example mining act on each GPU's images.
#
# Preset: what the published runs set, except that Eq. 6 sums over all classes as the paper has it
# (ignore_background=False); the imas-official config leaves out class 0, road, as the released code
# does.
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
        ignore_padding=False,  # the teacher labels padding like any pixel
        weak_in_joint_forward=True,  # batch normalisation sees the weak view, too
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    # A copy during the first pass, then min(1 - 1 / (step + 1), 0.996); running statistics are
    # averaged likewise.
    dict(type='MeanTeacherHook', decay=0.996, warmup='ratio', copy_epochs=1, buffers='average'),
]

# 240 passes over 2603 unlabelled images, 16 a step; evaluated and saved after every fourth.
iters_per_epoch = 2603 // 16
train_cfg = dict(max_iters=240 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
