# All 540 synthetic images are labeled: the upper bound.
_base_ = './suponly_deeplabv3plus_tiny_900iter_shapes-64x64.py'
train_dataloader = dict(dataset=dict(num_images=540))
