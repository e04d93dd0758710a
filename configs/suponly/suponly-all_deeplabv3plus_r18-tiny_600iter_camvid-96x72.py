# All 367 labels: the upper end.
_base_ = './suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'
train_dataloader = dict(dataset=dict(partition=None, ann_file='splits/train.txt'))
