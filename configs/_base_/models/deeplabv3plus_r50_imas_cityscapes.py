# As deeplabv3plus_r50_imas.py, for Cityscapes: hard example mining, an auxiliary head on stage 3,
# sliding windows.
_base_ = './deeplabv3plus_r50_imas.py'
# Each process uses all labeled pixels whose ground-truth class has a probability below 0.7, and at least 100000
# pixels.
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
    # 2 x 4 sliding windows of 769 on 1024 x 2048. As in iMAS's code, softmax scores are summed, and the last
    # windows are cut off at the border. MMSegmentation's EncoderDecoder sums logits and shifts the last windows
    # back to full size.
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(512, 512)),
)
