# iMAS, paper reading.
_base_ = './imas_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/1_8/seed0/labeled.txt'),
        unlabeled=dict(ann_file='splits/1_8/seed0/unlabeled.txt'),
    )
)
