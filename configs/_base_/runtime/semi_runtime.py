# As default_runtime.py, for methods with unlabeled images.
_base_ = './default_runtime.py'

# Methods with an EMA teacher add their MeanTeacherHook here.
custom_hooks = [*_base_.custom_hooks, dict(type='PseudoLabelMonitorHook')]

# The log shows means over its interval. The default pattern of MMEngine would show only the diagnostics of the
# last iteration, such as whether its batch was mixed.
log_processor = dict(
    by_epoch=False,
    window_size=50,
    mean_pattern=r'.*(loss|time|grad_norm|hardness|ratio|agreement|entropy|rate).*',
)
