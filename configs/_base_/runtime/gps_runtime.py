# As semi_runtime.py, in two stages: the teacher on the labeled images, then GPS. Configs set the learning rate
# of the teacher.
_base_ = './semi_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    # The network, labeled list, schedule and length are those of the config. To change the length, set
    # cfg=dict(train_cfg=dict(max_iters=...)).
    teacher=dict(type='SupervisedStage'),
    # If the teacher is already trained, no stages are needed: set runner_type='Runner' and
    # model.semi_train_cfg.teacher_checkpoint=PATH.
    joint=dict(
        type='TrainStage',
        cfg=dict(
            model=dict(semi_train_cfg=dict(teacher_checkpoint='stage://teacher/last_checkpoint'))
        ),
    ),
)

custom_hooks = [*_base_.custom_hooks, dict(type='AdaptiveRampUpHook')]

# As semi_runtime.py, with GPS's diagnostics.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|agreement|entropy|labeled_ce).*',
)
