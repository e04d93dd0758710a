# UniMatch V2, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of CPS), DINOv2-S with a DPT head: the
# settings of the paper and its code. 4 GPUs with 2 + 2 images each; hard example mining uses the images of one
# GPU. It is assumed, but not checked, that UniMatch V2 uses the lists of UniMatch, which are those of CPS.
_base_ = [
    '../_base_/models/dpt_dinov2-s14.py',
    '../_base_/datasets/cityscapes_unimatch_798.py',
    '../_base_/schedules/adamw_poly_dinov2.py',
    '../_base_/runtime/semi_runtime.py',
]
custom_imports = dict(imports=['mmseg_semi', 'mmpretrain.models'])
# Each process uses all labeled pixels whose ground-truth class has a probability below 0.7, and at least 200000
# pixels.
loss_decode = dict(_base_.model.decode_head.loss_decode, ohem=dict(threshold=0.7, min_kept=200000))
network = dict(
    _base_.model,
    decode_head=dict(_base_.model.decode_head, loss_decode=loss_decode),
    # Sliding windows of 798 with a stride of two thirds, all of full size. Their logits are averaged. The code
    # adds softmax scores.
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(532, 532)),
)
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
# The learning rates of the code are for this batch, which is half of that on VOC.
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=180, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
train_dataloader = dict(dataset=dict(partition='cps/372'))
