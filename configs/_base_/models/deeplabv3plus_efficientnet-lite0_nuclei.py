# As deeplabv3plus_efficientnet-lite0.py, for the three classes of the nuclei.
_base_ = './deeplabv3plus_efficientnet-lite0.py'
model = dict(decode_head=dict(num_classes=3))
