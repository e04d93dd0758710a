# iMAS, Pascal VOC 2012 classic 1/1 (1464 labelled, 9118 unlabelled), and the lead of the other VOC
# configs here. 4 GPUs with 4 + 4 images each: hardness, pairs and the CutMix trigger act on each
# GPU's 4 unlabelled images.
#
# Preset: what the published runs set, except that Eq. 6 sums over all classes as the paper has it
# (ignore_background=False); the imas-official configs leave out class 0 as the released code does.
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

# 80 passes over 9118 unlabelled images, 16 a step; evaluated and saved after each pass.
iters_per_epoch = 9118 // 16
train_cfg = dict(max_iters=80 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
