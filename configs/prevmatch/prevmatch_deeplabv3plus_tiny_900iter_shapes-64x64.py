# PrevMatch, 40 labeled and 500 unlabeled synthetic images, from scratch on a CPU: no data to prepare. The
# settings of UniMatch, and a copy of the model is kept every 75 iterations.
_base_ = '../unimatch/unimatch_deeplabv3plus_tiny_900iter_shapes-64x64.py'
# The threshold of the guidance is lower than in the paper, like that of the pseudo-labels.
model = dict(type='PrevMatch', semi_train_cfg=dict(guidance_tau=0.5))
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=75)]
