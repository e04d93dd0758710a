# As deeplabv3plus_r50_imas.py, for Cityscapes: hard example mining, an auxiliary head on stage 3,
# sliding windows.
_base_ = './deeplabv3plus_r50_imas.py'
# At least 100000 of a process's labeled pixels, and all whose true class has less than 0.7.
ohem = dict(threshold=0.7, min_kept=100000)
model = dict(
    type='SlideScoreEncoderDecoder',
    decode_head=dict(num_classes=19, loss_decode=dict(ohem=ohem)),
    auxiliary_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0,
        num_classes=19,
        norm_cfg=_base_.norm_cfg,
        align_corners=True,
        loss_decode=dict(type='PixelCrossEntropyLoss', loss_weight=0.4, ohem=ohem),
    ),
    # 2 x 4 windows of 769 on 1024 x 2048, softmax scores summed, the last windows cut off at the border, as in
    # iMAS's code. MMSegmentation's own (type='EncoderDecoder') sums logits and shifts windows back to be whole.
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(512, 512)),
)
