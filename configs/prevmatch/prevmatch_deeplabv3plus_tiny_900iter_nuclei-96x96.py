# PrevMatch, nuclei: 8 labeled images. The settings of UniMatch, and an earlier model every 75 steps.
_base_ = '../unimatch/unimatch_deeplabv3plus_tiny_900iter_nuclei-96x96.py'
model = dict(type='PrevMatch')
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=75)]
