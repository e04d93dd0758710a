# As default_runtime.py, for methods with several networks: each is evaluated, metrics carry its name.
_base_ = './default_runtime.py'

# Methods with an EMA teacher add their MeanTeacherHook here.
custom_hooks = [*_base_.custom_hooks, dict(type='PseudoLabelMonitorHook')]

val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TeacherStudentTestLoop')
