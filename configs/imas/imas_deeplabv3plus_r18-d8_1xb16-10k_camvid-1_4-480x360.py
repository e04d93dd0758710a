# iMAS, paper reading.
_base_ = './imas_deeplabv3plus_r18-d8_1xb16-10k_camvid-1_16-480x360.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/1_4/seed0/labeled.txt'),
        unlabeled=dict(ann_file='splits/1_4/seed0/unlabeled.txt'),
    )
)
