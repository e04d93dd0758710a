# As semi_runtime.py, in two stages: the teacher on the labeled images, then GPS. Configs give the teacher its
# learning rate.
_base_ = './semi_runtime.py'
runner_type = 'StagedRunner'
stages = dict(
    # Network, list, schedule and length of the config's own training. Another length:
    # cfg=dict(train_cfg=dict(max_iters=...)).
    teacher=dict(type='SupervisedStage'),
    # With a trained teacher, no stages are needed: runner_type='Runner',
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
