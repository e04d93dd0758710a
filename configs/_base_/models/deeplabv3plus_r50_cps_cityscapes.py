# As deeplabv3plus_r50_imas.py, for Cityscapes as in CPS's code: hard example mining, sliding windows, no
# auxiliary head.
_base_ = './deeplabv3plus_r50_imas.py'
model = dict(
    decode_head=dict(
        num_classes=19,
        # Each process uses all labeled pixels whose ground-truth class has a probability below 0.7, and at
        # least 50000 for each of its 2 labeled images.
        loss_decode=dict(ohem=dict(threshold=0.7, min_kept=100000)),
    ),
    # Sliding windows with a stride of two thirds, rounded up. As in CPS's code, the last windows are shifted
    # back to full size, and logits are summed.
    test_cfg=dict(mode='slide', crop_size=(800, 800), stride=(534, 534)),
)
