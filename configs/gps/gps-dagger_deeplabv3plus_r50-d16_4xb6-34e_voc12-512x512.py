# GPS-dagger of the paper, Pascal VOC 2012 1/8: the labeled images are also in the unlabeled list, which has all
# 10582 images. The training warns that both lists share images. It has the same number of epochs as GPS, and
# each epoch is longer by the labeled images. Published mIoU of one student: R50 76.03, R101 77.67.
_base_ = './gps_deeplabv3plus_r50-d16_4xb6-34e_voc12-512x512.py'

train_dataloader = dict(
    dataset=dict(unlabeled=dict(ann_file='ImageSets/Segmentation/trainaug.txt'))
)
