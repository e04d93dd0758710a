# UniMatch V2, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled), DINOv2-S with a DPT head: the
# settings of the paper and its code. 4 GPUs with 4 + 4 images each. In the evaluation, images are padded to
# whole patches. The code resizes them instead.
_base_ = [
    '../_base_/models/dpt_dinov2-s14.py',
    '../_base_/datasets/voc12_unimatch_518.py',
    '../_base_/schedules/adamw_poly_dinov2.py',
    '../_base_/runtime/semi_runtime.py',
]
custom_imports = dict(imports=['mmseg_semi', 'mmpretrain.models'])
network = dict(_base_.model, decode_head=dict(_base_.model.decode_head, num_classes=21))
model = dict(
    _delete_=True,
    type='UniMatchV2',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=network,
    semi_train_cfg=dict(tau=0.95),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.996, warmup='ratio', buffers='average'),
]
# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=60, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
