# PrevMatch, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled): the settings of the authors' code. 4
# GPUs with 2 + 2 images each; the authors had one GPU with 8 + 8.
_base_ = '../unimatch/unimatch_deeplabv3plus_r101-d16_4xb4-80e_voc12-321x321.py'
model = dict(type='PrevMatch')
# After each validation with the best mIoU so far, as in the code.
custom_hooks = [*_base_.custom_hooks, dict(type='EarlierModelHook')]
