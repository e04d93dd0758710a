# ESL, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled). 4 GPUs with 2 + 2 images each: CutMix pairs
# and anchors use the images of one GPU. The memory bank and the prototypes use those of all GPUs.
#
# The settings are the paper's. Settings that the paper does not give are the defaults of semi_train_cfg. The
# network is U2PL's: output stride 8, ASPP rates 12, 24, 36, multi-grid.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_esl.py',
    '../_base_/datasets/voc12_semi.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/esl_runtime.py',
]
model = dict(
    _delete_=True,
    type='ESL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        soft_weight=0.2,
        contrast_weight=0.1,
        eta=0.95,
        num_parts=5,
        num_negatives=255,
        temperature=0.5,
        anchor_threshold=0.95,
        prototype_decay=0.99,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
train_dataloader = dict(
    batch_size=4,
    sampler=dict(labeled=2, unlabeled=2),
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    ),
)
# In this config, the learning rates are for 8 labeled and 8 unlabeled images per step.
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
