# Supervised only, Cityscapes 1/8 (372 labeled, list of U2PL): the baseline of iMAS's configs. 4 GPUs with 4
# images each. It has the number of iterations of iMAS: see "The supervised baselines" in docs/configs.md.
_base_ = [
    '../_base_/models/deeplabv3plus_r50_imas_cityscapes.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/sgd_poly_cityscapes.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after every
# fourth epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=240, val_every=4)
default_hooks = dict(checkpoint=dict(interval='val'))
