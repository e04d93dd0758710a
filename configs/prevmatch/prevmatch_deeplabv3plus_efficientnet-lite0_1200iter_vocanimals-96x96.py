# PrevMatch, VOC animals: the 222 labeled images of classic 732. The settings of UniMatch, and a copy of the
# model is kept every 100 iterations.
_base_ = '../unimatch/unimatch_deeplabv3plus_efficientnet-lite0_1200iter_vocanimals-96x96.py'
# The threshold of the guidance is lower than in the paper, like that of the pseudo-labels.
model = dict(type='PrevMatch', semi_train_cfg=dict(guidance_tau=0.6))
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=100)]
