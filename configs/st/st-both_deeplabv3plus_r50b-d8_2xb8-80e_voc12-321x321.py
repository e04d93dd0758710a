# ST, Pascal VOC 2012: the paper's ablation, in which the student is trained with strong augmentation on labeled
# images, too.
_base_ = './st_deeplabv3plus_r50b-d8_2xb8-80e_voc12-321x321.py'
both = [*_base_.train_pipeline[:-1], *_base_.strong, *_base_.train_pipeline[-1:]]
stages = dict(
    student=dict(cfg=dict(train_dataloader=dict(dataset=dict(labeled=dict(pipeline=both)))))
)
