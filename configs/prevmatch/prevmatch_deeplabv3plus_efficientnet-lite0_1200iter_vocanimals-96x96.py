# PrevMatch, VOC animals: the 222 labeled images of classic 732. The settings of UniMatch, and an earlier model
# every 100 steps.
_base_ = '../unimatch/unimatch_deeplabv3plus_efficientnet-lite0_1200iter_vocanimals-96x96.py'
model = dict(type='PrevMatch')
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=100)]
