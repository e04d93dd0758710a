# PrevMatch, nuclei: 8 labeled images. The settings of UniMatch, and a copy of the model is kept every 75
# iterations.
_base_ = '../unimatch/unimatch_deeplabv3plus_tiny_900iter_nuclei-96x96.py'
# The threshold of the guidance is lower than in the paper, like that of the pseudo-labels.
model = dict(type='PrevMatch', semi_train_cfg=dict(guidance_tau=0.6))
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=75)]
