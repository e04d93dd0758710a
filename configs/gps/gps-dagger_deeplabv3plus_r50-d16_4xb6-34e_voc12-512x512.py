# GPS-dagger of the paper: the labelled images are learnt without their labels as well, so that the unlabelled
# list is all 10582; a run warns that both lists share images. As many passes as GPS, each longer by the
# labelled images. Published, mIoU of one student: R50 76.03, R101 77.67.
_base_ = './gps_deeplabv3plus_r50-d16_4xb6-34e_voc12-512x512.py'

# An epoch is a pass over the unlabeled images, 8 learnt a step; evaluated and saved after each.
train_cfg = dict(
    type='UnlabeledEpochTrainLoop',
    epochs={
        'blender-cps/1323': 34,
        'blender-cps/2646': 40,
        'blender-cps/5291': 60,
    },
    val_every=1,
)
default_hooks = dict(checkpoint=dict(interval='val'))
train_dataloader = dict(
    dataset=dict(unlabeled=dict(ann_file='ImageSets/Segmentation/trainaug.txt'))
)
