_base_ = './stpp_deeplabv3plus_r50b-d8_4xb4-240e_cityscapes-stpp-372-721x721.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/stpp/744/labeled.txt'),
        pseudo_labeled=dict(images=dict(ann_file='splits/stpp/744/unlabeled.txt')),
    )
)
