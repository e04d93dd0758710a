# As default_runtime.py, for methods with unlabeled images.
_base_ = './default_runtime.py'

# Methods with an EMA teacher add their MeanTeacherHook here.
custom_hooks = [*_base_.custom_hooks, dict(type='PseudoLabelMonitorHook')]

# The log shows means over its interval; MMEngine's own pattern would show the last iteration's diagnostics,
# e.g. whether that one batch was mixed.
log_processor = dict(
    by_epoch=False,
    window_size=50,
    mean_pattern=r'.*(loss|time|grad_norm|hardness|ratio|agreement|entropy|rate).*',
)
