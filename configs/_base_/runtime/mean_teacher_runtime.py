# As semi_runtime.py, without the watch over the share of confident pixels: Mean Teacher has no threshold.
_base_ = './semi_runtime.py'

custom_hooks = _base_.custom_hooks[:-1]
