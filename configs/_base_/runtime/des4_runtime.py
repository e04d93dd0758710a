# As semi_runtime.py, with the hooks of DeS4.
_base_ = './semi_runtime.py'

custom_hooks = [
    *_base_.custom_hooks,
    # The encoder alone; constant from the start, as Eq. 5 has it. U2PL's: warmup='ratio'.
    dict(type='MeanTeacherHook', decay=0.99, warmup='none', buffers='average'),
    dict(type='ClassCountHook'),
    dict(type='ClassDistributionHook', interval=500),
]

# As semi_runtime.py, with DeS4's diagnostics.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|ratio|entropy|rate|prototype|distance).*',
)
