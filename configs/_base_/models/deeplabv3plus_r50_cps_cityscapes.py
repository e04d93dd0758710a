# As deeplabv3plus_r50_imas.py, for Cityscapes as CPS's code has it: hard example mining, sliding windows, no
# auxiliary head.
_base_ = './deeplabv3plus_r50_imas.py'
model = dict(
    type='SlideScoreEncoderDecoder',
    decode_head=dict(
        num_classes=19,
        # At least 50000 of a process's labelled pixels, and all whose true class has less than 0.7.
        loss_decode=dict(ohem=dict(threshold=0.7, min_kept=50000)),
    ),
    # Windows two thirds of their size apart.
    test_cfg=dict(mode='slide', crop_size=(800, 800), stride=(533, 533)),
)
