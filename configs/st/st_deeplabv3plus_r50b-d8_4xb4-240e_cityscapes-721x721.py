# ST, Cityscapes 1/8 (372 labeled, lists of ST++). 240 epochs per training, 4 GPUs with 4 images each,
# evaluated at full size.
_base_ = [
    '../_base_/models/deeplabv3plus_r50b_st.py',
    '../_base_/datasets/cityscapes_self_training.py',
    '../_base_/schedules/sgd_poly_st.py',
    '../_base_/runtime/st_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=19))
optim_wrapper = dict(optimizer=dict(lr=0.004))
train_cfg = dict(type='WholeStepEpochTrainLoop', max_epochs=240, val_interval=24)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=4)
)
log_processor = dict(by_epoch=True)
# Whole images of 1024 x 2048 pixels, up to twice that size at the largest of the five scales.
stages = dict(label=dict(batch_size=1))
