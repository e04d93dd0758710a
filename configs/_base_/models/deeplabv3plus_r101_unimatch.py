# As deeplabv3plus_r101_imas.py (its notes on stem and decoder apply here, too), without multi-grid: UniMatch's
# network for Pascal VOC, output stride 16.
_base_ = './deeplabv3plus_r101_imas.py'
model = dict(backbone=dict(multi_grid=None))
