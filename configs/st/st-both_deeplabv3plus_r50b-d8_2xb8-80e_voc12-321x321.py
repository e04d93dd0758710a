# ST with its strong augmentation on labeled images as well, in the student's training: the paper's ablation.
_base_ = './st_deeplabv3plus_r50b-d8_2xb8-80e_voc12-321x321.py'
both = [*_base_.train_pipeline[:-1], *_base_.strong, *_base_.train_pipeline[-1:]]
stages = dict(
    student=dict(cfg=dict(train_dataloader=dict(dataset=dict(labeled=dict(pipeline=both)))))
)
