# All 367 images are labeled: the upper bound.
_base_ = './suponly_deeplabv3plus_r50-d8_1xb8-10k_camvid-480x360.py'
train_dataloader = dict(dataset=dict(partition=None, ann_file='splits/train.txt'))
