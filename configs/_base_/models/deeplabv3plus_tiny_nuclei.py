# As deeplabv3plus_tiny.py, for the three classes of the nuclei.
_base_ = './deeplabv3plus_tiny.py'
# Share of background, nucleus and border in the pixels, in percent; weights as for CamVid
# (deeplabv3plus_r18-tiny_camvid.py).
class_percent = [86.4, 8.3, 5.3]
mean_weight = sum(percent**0.5 for percent in class_percent) / sum(class_percent)
class_weight = [round(percent**-0.5 / mean_weight, 4) for percent in class_percent]
model = dict(decode_head=dict(num_classes=3, loss_decode=dict(class_weight=class_weight)))
