# MMSegmentation's stock DeepLabv3+ with ImageNet weights, for your own data. Set num_classes of both heads.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
model = dict(
    # The loss is the mean over pixels that are not void. Crops of small images are padded with void, and the
    # default of MMSegmentation would include it.
    decode_head=dict(
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0)
    ),
    auxiliary_head=dict(
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=0.4)
    ),
)
