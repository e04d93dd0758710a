# As the released code: Eq. 6 leaves out class 0 (background) and renormalises, and the intensity
# operations have its ranges (factors from 0.1, posterize to 4-7 bits). Everything else is the
# lead's.
_base_ = './imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-blender-cps-1323-513x513.py'
model = dict(semi_train_cfg=dict(ignore_background=True))
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:-1],
    dict(
        type='MultiBranch',
        weak=[dict(type='PackUnlabeledInputs')],
        strong=[dict(type='RandomIntensity', ranges='official'), dict(type='PackUnlabeledInputs')],
    ),
]
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=unlabeled_pipeline)))
