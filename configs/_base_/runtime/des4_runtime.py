# As semi_runtime.py, with the hooks of DeS4.
_base_ = './semi_runtime.py'

custom_hooks = [
    *_base_.custom_hooks,
    # Only the encoder is averaged. The decay is constant from the start, as in Eq. 5. For that of U2PL, set
    # warmup='ratio'.
    dict(type='MeanTeacherHook', decay=0.99, warmup='none', buffers='average'),
    dict(type='ClassCountHook'),
    dict(type='ClassDistributionHook', interval=500),
]

# As semi_runtime.py, with DeS4's diagnostics.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|ratio|entropy|rate|prototype|distance).*',
)
