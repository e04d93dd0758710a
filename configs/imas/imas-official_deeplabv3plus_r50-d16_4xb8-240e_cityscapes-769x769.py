# iMAS, official reading, Cityscapes 1/8: the settings of the released code and configs, with MMSegmentation's
# stem and decoder. The config with r50s has the published network.
_base_ = './imas_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-769x769.py'
model = dict(
    semi_train_cfg=dict(
        ignore_background=True,  # Eq. 6 leaves out class 0, road, and renormalizes
        ignore_padding=False,  # padding gets pseudo-labels like any other pixel
        weak_in_joint_forward=True,  # batch normalization sees the weak view, too
    )
)
# The ranges of the code: factors from 0.1, posterize to 4 to 7 bits.
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:-1],
    dict(
        type='MultiBranch',
        weak=[dict(type='PackUnlabeledInputs')],
        strong=[dict(type='RandomIntensity', ranges='official'), dict(type='PackUnlabeledInputs')],
    ),
]
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=unlabeled_pipeline)))
custom_hooks = [
    *_base_.custom_hooks[:-1],
    # The teacher is a copy of the student in the first epoch. Then the decay is min(1 - 1 / (step + 1), 0.996).
    dict(type='MeanTeacherHook', decay=0.996, warmup='ratio', copy_epochs=1, buffers='average'),
]
# The model is evaluated and saved after each epoch. The best checkpoint on the validation set is kept, too.
# Every published result is from such a checkpoint.
train_cfg = dict(val_every=1)
default_hooks = dict(checkpoint=dict(interval='val', save_best='teacher/mIoU'))
