# Evaluated as U2PL does while it trains, which ESL's tables follow: the center 513 x 513 of each image
# instead of all of it. Where an image is smaller the rest is void here and scored as background there.
_base_ = './esl_deeplabv3plus_r101-d8_4xb4-80e_voc12-513x513.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='CenterCrop',
        crop_size=(513, 513),
        auto_pad=True,
        pad_cfg=dict(type='Pad', pad_val=dict(img=(103.53, 116.28, 123.675), seg=255)),
    ),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
