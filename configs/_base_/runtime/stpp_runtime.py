# ST++ (Algorithm 2): the teacher makes pseudo-labels for the reliable half of the unlabeled images, and a
# student is trained on them. This student makes pseudo-labels for the other half, and the last student is
# trained on all images.
_base_ = './default_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    # At the top level of a config, `teacher` sets a teacher that differs from the student, and
    # `teacher_checkpoint` sets a trained teacher: docs/small_network.md.
    teacher=dict(
        type='TeacherStage',
        # Checkpoints after a third, two thirds and all of the training.
        extra_hooks=[dict(type='ReliableSelectionHook', num_checkpoints=3)],
    ),
    select=dict(type='SelectStage', model='teacher', ratio=0.5),
    # checkpoint='best' makes pseudo-labels with the best checkpoint on the validation set, as the paper's code
    # does (needs default_hooks.checkpoint.save_best='mIoU').
    label_reliable=dict(
        type='LabelStage', model='teacher', subset='stage://select/reliable.txt', checkpoint='last'
    ),
    student=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(
                dataset=dict(pseudo_labeled=dict(labels=['stage://label_reliable']))
            )
        ),
    ),
    label_unreliable=dict(
        type='LabelStage',
        model='student',
        subset='stage://select/unreliable.txt',
        checkpoint='last',
    ),
    final=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(
                dataset=dict(
                    pseudo_labeled=dict(
                        labels=['stage://label_reliable', 'stage://label_unreliable']
                    )
                )
            )
        ),
    ),
)
