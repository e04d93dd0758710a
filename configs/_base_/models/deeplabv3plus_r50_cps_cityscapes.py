# As deeplabv3plus_r50_imas.py, for Cityscapes as CPS's code has it: hard example mining, sliding windows, no
# auxiliary head.
_base_ = './deeplabv3plus_r50_imas.py'
model = dict(
    decode_head=dict(
        num_classes=19,
        # All labeled pixels whose true class has less than 0.7, and at least 50000 for each of the 2 labeled
        # images of a process.
        loss_decode=dict(ohem=dict(threshold=0.7, min_kept=100000)),
    ),
    # Windows two thirds of their size apart, rounded up; as in CPS's code, the last ones are shifted back
    # and logits are summed.
    test_cfg=dict(mode='slide', crop_size=(800, 800), stride=(534, 534)),
)
