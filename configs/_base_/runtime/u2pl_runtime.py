# As semi_runtime.py, with the hook of U2PL.
_base_ = './semi_runtime.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    # U2PL selects pixels by their share, not by a threshold.
    dict(type='PseudoLabelMonitorHook', key='reliable_ratio'),
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
]

# As semi_runtime.py, with U2PL's diagnostics.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|ratio|entropy|rate|accuracy).*',
)
