# Supervised only, the first stage of ST and ST++, Pascal VOC classic 1464. 80 epochs, 2 GPUs with 8 images
# each. 1464 labeled images, in epochs of 91 iterations; lists of fewer than 200 images are repeated once.
_base_ = [
    '../_base_/models/deeplabv3plus_r101b_st.py',
    '../_base_/datasets/voc12_self_training.py',
    '../_base_/schedules/sgd_poly_st.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(dataset=dict(pseudo_labeled=None))
train_cfg = dict(type='WholeStepEpochTrainLoop', max_epochs=80, val_interval=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=2)
)
log_processor = dict(by_epoch=True)
