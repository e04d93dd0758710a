# Supervised only, the first stage of ST and ST++, Pascal VOC blender 1323 (lists of ST++), PSPNet.
_base_ = [
    '../_base_/models/pspnet_r50b_st.py',
    '../_base_/datasets/voc12_self_training.py',
    '../_base_/schedules/sgd_poly_st.py',
    '../_base_/runtime/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_dataloader = dict(dataset=dict(partition='blender-stpp/1323', pseudo_labeled=None))
train_cfg = dict(type='WholeStepEpochTrainLoop', max_epochs=80, val_interval=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=2)
)
log_processor = dict(by_epoch=True)
