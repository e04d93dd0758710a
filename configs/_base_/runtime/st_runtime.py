# ST (ST++, Algorithm 1): train a teacher on the labeled images, make pseudo-labels for all unlabeled images,
# and train a student on both.
_base_ = './default_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    # At the top level of a config, `teacher` sets a teacher that differs from the student, and
    # `teacher_checkpoint` sets a trained teacher: docs/small_network.md.
    teacher=dict(type='TeacherStage'),
    # checkpoint='best' makes pseudo-labels with the best checkpoint on the validation set, as the paper's code
    # does (needs default_hooks.checkpoint.save_best='mIoU').
    label=dict(type='LabelStage', model='teacher', checkpoint='last'),
    student=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(dataset=dict(pseudo_labeled=dict(labels=['stage://label'])))
        ),
    ),
)
