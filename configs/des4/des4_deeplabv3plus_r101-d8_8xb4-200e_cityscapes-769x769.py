# DeS4, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of U2PL). 8 GPUs with 2 + 2 images each: CutMix
# pairs, samples and hard example mining use the images of one GPU, and prototypes use those of all GPUs.
#
# The settings are the paper's. Settings that the paper does not give (length, one learning rate for the whole
# network, hard example mining on labeled images, auxiliary head) are U2PL's or the defaults of semi_train_cfg.
# The temperature is 0.1. The paper gives none, which means 1.0. The encoder has ImageNet weights. The paper's
# encoder was also trained on COCO.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_esl_cityscapes.py',
    '../_base_/datasets/cityscapes_semi.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/des4_runtime.py',
]
model = dict(
    _delete_=True,
    type='DeS4',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(
        temperature=0.1,
        labeled_weight=1.0,
        unlabeled_weight=1.5,
        prototype_decay=0.99,
        num_zones=5,
        alpha=0.1,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
optim_wrapper = dict(optimizer=dict(weight_decay=6e-4))
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

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=200, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
