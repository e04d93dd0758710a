# ESL, Pascal VOC 2012 classic 1/1, evaluated on the center 513 x 513 pixels of each image, as U2PL does during
# training and as in the tables of ESL. The area outside a smaller image is void here. U2PL evaluates it as
# background.
_base_ = './esl_deeplabv3plus_r101-d8_4xb4-80e_voc12-513x513.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='EvaluationCenterCrop',
        crop_size=(513, 513),
        auto_pad=True,
        pad_cfg=dict(type='Pad', pad_val=dict(img=(103.53, 116.28, 123.675), seg=255)),
    ),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
