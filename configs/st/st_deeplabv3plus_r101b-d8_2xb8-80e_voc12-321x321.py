# ST, Pascal VOC classic 1464. 80 epochs per training, 2 GPUs with 8 images each. An epoch of the student is
# 10248 labeled (1464, each 7 times) and 9118 pseudo-labeled images.
_base_ = [
    '../_base_/models/deeplabv3plus_r101b_st.py',
    '../_base_/datasets/voc12_self_training.py',
    '../_base_/schedules/sgd_poly_st.py',
    '../_base_/runtime/st_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_cfg = dict(type='WholeStepEpochTrainLoop', max_epochs=80, val_interval=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=2)
)
log_processor = dict(by_epoch=True)
