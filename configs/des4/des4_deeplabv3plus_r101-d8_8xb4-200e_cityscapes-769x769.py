# DeS4, Cityscapes 1/8 (372 labeled, 2603 unlabeled, lists of U2PL). 8 GPUs with 2 + 2 images each: CutMix
# pairs, samples and hard example mining are of each GPU's images, prototypes of all.
#
# The paper's settings; where it gives none (length, one learning rate for all, hard example mining on the
# student's labeled images, auxiliary head), U2PL's, and the defaults of semi_train_cfg. Temperature 0.1: the
# paper gives none, which means 1.0. Encoder with ImageNet weights; the paper's was trained on COCO besides.
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

# An epoch is a pass over the unlabeled images, 16 per step. It is evaluated and saved after every fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=200, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
