# U2PL, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled). 4 GPUs with 4 + 4 images each: CutMix pairs,
# unreliable shares, anchors and centers use the images of one GPU, and the memory bank uses those of all GPUs.
#
# The settings and the network are the paper's: output stride 8, ASPP rates 12, 24, 36, multi-grid.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_esl.py',
    '../_base_/datasets/voc12_u2pl.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/u2pl_runtime.py',
]

# 80 epochs of 9118 unlabeled images, 16 per iteration. The first epoch does not use them. The model is
# evaluated and saved after each epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))

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
        unlabeled_start_epochs=1,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
# As in the authors' code, the teacher is a copy of the student during the supervised epoch and the first epoch
# with unlabeled images. Both networks share their storage there. The warm-up of the decay in the paper never
# has an effect.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='MeanTeacherHook', decay=0.99, warmup='none', copy_epochs=2, buffers='average'),
]
