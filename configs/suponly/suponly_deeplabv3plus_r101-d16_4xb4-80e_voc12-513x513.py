# Supervised only, Pascal VOC 2012 classic 1/1 (1464 labeled): the baseline of iMAS's configs. 4 GPUs with 4
# images each.
#
# It has the same labeled images and number of iterations as iMAS, so that only the unlabeled images differ. The
# baseline of the paper has 80 epochs of the labeled images and no multi-grid: see "The supervised baselines" in
# docs/configs.md.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_imas.py',
    '../_base_/datasets/voc12.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 16 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
