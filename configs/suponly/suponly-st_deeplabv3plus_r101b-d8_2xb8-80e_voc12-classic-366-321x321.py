_base_ = './suponly-st_deeplabv3plus_r101b-d8_2xb8-80e_voc12-classic-1464-321x321.py'
train_dataloader = dict(dataset=dict(labeled=dict(ann_file='splits/classic/366/labeled.txt')))
