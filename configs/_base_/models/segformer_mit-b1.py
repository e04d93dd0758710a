# SegFormer-B1 with ImageNet weights, as MMSegmentation's segformer_mit-b1 configs define it.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/segformer_mit-b0.py')
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/mit_b1_20220624-02e5a6a1.pth'
model = dict(
    backbone=dict(embed_dims=64, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(
        in_channels=[64, 128, 320, 512],
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
)
