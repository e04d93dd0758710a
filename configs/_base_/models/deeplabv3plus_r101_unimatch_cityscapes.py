# As deeplabv3plus_r101_unimatch.py, for Cityscapes: hard example mining, no auxiliary head, sliding windows.
_base_ = './deeplabv3plus_r101_unimatch.py'
model = dict(
    type='SlideScoreEncoderDecoder',
    decode_head=dict(
        num_classes=19,
        # Each process uses all labeled pixels whose ground-truth class has a probability below 0.7, and at
        # least 200000 pixels.
        loss_decode=dict(ohem=dict(threshold=0.7, min_kept=200000)),
    ),
    # Sliding windows of 801 with a stride of two thirds. Softmax scores are summed, and the last windows are
    # cut off at the border.
    test_cfg=dict(mode='slide', crop_size=(801, 801), stride=(534, 534)),
)
