# ST (ST++, Algorithm 1): train a teacher on the labeled images, make pseudo-labels for all others, train a
# student on both.
_base_ = './default_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    # `teacher` at the top level of a config sets another network than the student, and `teacher_checkpoint` a
    # trained one: docs/small_network.md.
    teacher=dict(type='TeacherStage'),
    # checkpoint='best' makes pseudo-labels with the best one on the validation set (the paper's code does so;
    # it needs default_hooks.checkpoint.save_best='mIoU').
    label=dict(type='LabelStage', model='teacher', checkpoint='last'),
    student=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(dataset=dict(pseudo_labeled=dict(labels=['stage://label'])))
        ),
    ),
)
