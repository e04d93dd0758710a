# PrevMatch on images of your own, one GPU: UniMatch's settings, and an earlier model every 1500 iterations.
# README, "Your own data", shows what to set on top of it.
_base_ = '../unimatch/unimatch_deeplabv3plus_r50-d8_1xb8-20k_own-512x512.py'
model = dict(type='PrevMatch')
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook', interval=1500)]
