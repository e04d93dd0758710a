# ESL, CamVid 1/16 (23 labeled, 344 unlabeled), from scratch on one GPU. Another draw: --cfg-options
# train_dataloader.dataset.partition=1_16/seed1.
_base_ = [
    '../_base_/models/deeplabv3plus_r18_camvid.py',
    '../_base_/datasets/camvid_semi.py',
    '../_base_/schedules/adamw_poly.py',
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
        # The vectors and the head are as narrow as the network.
        segmentation_head=dict(channels=128),
        projector=dict(channels=128, out_channels=128),
        # From scratch: a supervised start, after which pixels are assigned to parts.
        unlabeled_start=2000,
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
train_cfg = dict(max_iters=10000, val_interval=1000)
