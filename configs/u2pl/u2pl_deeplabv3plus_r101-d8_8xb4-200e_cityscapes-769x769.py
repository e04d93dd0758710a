# U2PL, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of U2PL). 8 GPUs with 2 + 2 images each: CutMix
# pairs, unreliable shares, anchors, centers and hard example mining use the images of one GPU, and the memory
# bank uses those of all GPUs.
#
# The settings and the network are the paper's: output stride 8, ASPP rates 12, 24, 36, multi-grid, hard example
# mining, an auxiliary head, whole sliding windows whose logits are averaged.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_esl_cityscapes.py',
    '../_base_/datasets/cityscapes_u2pl.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/u2pl_runtime.py',
]
model = dict(
    _delete_=True,
    type='U2PL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        unlabeled_weight=1.0,
        contrast_weight=0.1,
        unreliable_share=0.2,
        anchor_threshold=0.3,
        # The values of the authors' code, which produced their results. The paper gives 50 and 256.
        num_anchors=256,
        num_negatives=50,
        temperature=0.5,
        low_rank=3,
        high_rank=20,
        ignore_padding=False,  # all pixels have a pseudo-label
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
# As in the authors' code, the teacher is a copy of the student during the first epoch. Both networks share
# their storage there. The warm-up of the decay in the paper never has an effect.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='MeanTeacherHook', decay=0.99, warmup='none', copy_epochs=1, buffers='average'),
]
train_dataloader = dict(batch_size=4, sampler=dict(labeled=2, unlabeled=2))

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=200, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
