# DeS4, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled). 8 GPUs with 2 + 2 images each: CutMix pairs
# and samples come from the images of one GPU, and prototypes from those of all GPUs.
#
# The settings are the paper's. Settings that the paper does not give are the defaults of semi_train_cfg. The
# network is U2PL's: output stride 8, ASPP rates 12, 24, 36, multi-grid. The temperature is 0.1. The paper gives
# none, which means 1.0. The encoder has ImageNet weights. For classic 92 and 183, the paper's encoder was also
# trained on COCO.
_base_ = [
    '../_base_/models/deeplabv3plus_r101-d8_esl.py',
    '../_base_/datasets/voc12_semi.py',
    '../_base_/schedules/sgd_poly_voc12.py',
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

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
