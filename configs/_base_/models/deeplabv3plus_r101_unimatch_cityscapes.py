# As deeplabv3plus_r101_unimatch.py, for Cityscapes: hard example mining, no auxiliary head, sliding windows.
_base_ = './deeplabv3plus_r101_unimatch.py'
model = dict(
    type='SlideScoreEncoderDecoder',
    decode_head=dict(
        num_classes=19,
        # At least 200000 of a process's labeled pixels, and all whose true class has less than 0.7.
        loss_decode=dict(ohem=dict(threshold=0.7, min_kept=200000)),
    ),
    # Windows of 801 that advance by two thirds, softmax scores summed, the last windows cut off at the border.
    test_cfg=dict(mode='slide', crop_size=(801, 801), stride=(534, 534)),
)
