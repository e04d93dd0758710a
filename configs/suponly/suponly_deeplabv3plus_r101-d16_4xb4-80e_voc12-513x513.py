# Supervised only, Pascal VOC 2012 classic 1/1 (1464 labeled): the baseline of iMAS's configs. 4 GPUs with 4
# images each.
#
# It trains for as many iterations on the same labeled images as iMAS does, so that only the
# unlabeled images differ. The paper's own baseline makes 80 passes over the labeled list
# instead, without multi-grid: docs/configs.md, "The supervised baselines".
_base_ = [
    '../_base_/models/deeplabv3plus_r101_imas.py',
    '../_base_/datasets/voc12.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 16 per step. It is evaluated and saved after each epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
