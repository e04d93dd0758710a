# Settings that all trainings share: MMSegmentation's runtime, this package, hooks, seed.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/default_runtime.py')

custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='StepSchedulerHook'),
    # The last checkpoint is the result. `save_best='mIoU'` also keeps the best checkpoint on the validation
    # set, as in the tables of the papers. For a method, it is the mIoU of the network that predicts;
    # 'student/mIoU' selects another network. If the checkpoint is selected on the data of the reported result,
    # the result is 0.3 to 3.4 points higher.
    checkpoint=dict(
        type='AtomicCheckpointHook', by_epoch=False, interval=1000, max_keep_ckpts=2, save_last=True
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)

# A list in a config replaces the list of its base. To add a hook, write `[*_base_.custom_hooks, dict(...)]`.
custom_hooks = [
    dict(type='ResumableRandomnessHook'),
    dict(type='StartupCheckHook'),
    dict(type='ResumeCheckHook'),
    dict(type='FiniteLossHook'),
]

# Also works for stock models, and on CPU with the gloo backend. You can also set find_unused_parameters,
# static_graph and broadcast_buffers at the top level of a config.
model_wrapper_cfg = dict(type='SemiDistributedDataParallel')

randomness = dict(seed=0)

train_cfg = dict(type='WholeStepIterTrainLoop')
# Also works for plain networks. Images of different sizes are evaluated one by one. If there are several
# networks or validation sets, the names of metrics contain theirs (docs/your_own_data.md).
val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TeacherStudentTestLoop')
