# All 367 images are labeled: the upper bound.
_base_ = './suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'
train_dataloader = dict(dataset=dict(partition=None, ann_file='splits/train.txt'))
