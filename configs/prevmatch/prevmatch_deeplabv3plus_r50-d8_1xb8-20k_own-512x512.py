# PrevMatch on images of your own, one GPU: the settings of UniMatch, and a copy of the model is kept every 1500
# iterations. See "Your own data" in README.md for the settings to add.
_base_ = '../unimatch/unimatch_deeplabv3plus_r50-d8_1xb8-20k_own-512x512.py'
model = dict(type='PrevMatch')
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=1500)]
