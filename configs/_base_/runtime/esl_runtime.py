# As semi_runtime.py, with the hooks of ESL.
_base_ = './semi_runtime.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='MeanTeacherHook', decay=0.99, warmup='ratio', buffers='average'),
    dict(type='PrototypeInitHook', max_pixels=10000, seed=0),
]

# Timeout in seconds: the other processes wait while the first one clusters the features of the labeled images.
env_cfg = dict(dist_cfg=dict(timeout=7200))

# As semi_runtime.py, with ESL's diagnostics.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|ratio|entropy|rate|anchors|accuracy).*',
)
