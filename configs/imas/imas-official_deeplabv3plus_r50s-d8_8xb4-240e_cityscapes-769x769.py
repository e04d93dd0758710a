# iMAS, official reading, Cityscapes 1/8, on the network of the published results at output stride 8, on 8 GPUs
# with 2 + 2 images each: hardness, pairs and the CutMix trigger then use 2 images.
_base_ = './imas-official_deeplabv3plus_r50s-d16_4xb8-240e_cityscapes-769x769.py'
model = dict(
    segmentor=dict(
        backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), multi_grid=(4, 8, 16)),
        decode_head=dict(dilations=(1, 12, 24, 36)),
    )
)
train_dataloader = dict(batch_size=4, sampler=dict(labeled=2, unlabeled=2))
