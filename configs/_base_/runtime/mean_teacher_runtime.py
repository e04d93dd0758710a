# As semi_runtime.py, without the hook that monitors the confident ratio: Mean Teacher has no threshold.
_base_ = './semi_runtime.py'

custom_hooks = _base_.custom_hooks[:-1]
