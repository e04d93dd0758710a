# ST++, Pascal VOC classic 366, with the paper's third re-training: all images get new pseudo-labels, and one
# more network is trained on them.
_base_ = [
    '../_base_/models/deeplabv3plus_r101b_st.py',
    '../_base_/datasets/voc12_self_training.py',
    '../_base_/schedules/sgd_poly_st.py',
    '../_base_/runtime/stpp_retrain3_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
train_cfg = dict(type='WholeStepEpochTrainLoop', max_epochs=80, val_interval=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=2)
)
log_processor = dict(by_epoch=True)
