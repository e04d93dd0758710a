# As semi_runtime.py, with the hook of CPS.
_base_ = './semi_runtime.py'

custom_hooks = [*_base_.custom_hooks, dict(type='IterationHook')]
