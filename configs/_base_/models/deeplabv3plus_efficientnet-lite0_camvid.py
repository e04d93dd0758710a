# As deeplabv3plus_efficientnet-lite0.py, for the eleven classes of CamVid.
_base_ = './deeplabv3plus_efficientnet-lite0.py'
model = dict(decode_head=dict(num_classes=11))
