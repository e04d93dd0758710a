# PSPNet with torchvision's ResNet-50 at output stride 8, for Pascal VOC: the head of MMSegmentation (bins 1, 2,
# 3 and 6, dropout 0.1) on the encoder of ST++, trained like deeplabv3plus_r50b_st.py.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/pspnet_r50-d8.py')
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(type='ResNet', norm_cfg=norm_cfg),
    decode_head=dict(
        norm_cfg=norm_cfg,
        num_classes=21,
        align_corners=True,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
