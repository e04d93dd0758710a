# ST (ST++, Algorithm 1): a teacher on the labeled images, its pseudo-labels for all others, a student on both.
_base_ = './default_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    teacher=dict(
        type='TrainStage', cfg=dict(train_dataloader=dict(dataset=dict(pseudo_labeled=None)))
    ),
    # checkpoint='best' labels with the best on the validation set, as the paper's code does (it also needs
    # default_hooks.checkpoint.save_best='mIoU').
    label=dict(type='LabelStage', model='teacher', checkpoint='last'),
    student=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(dataset=dict(pseudo_labeled=dict(labels=['stage://label'])))
        ),
    ),
)
