# FixMatch, CamVid 1/16 (23 labeled, 344 unlabeled), from scratch on one GPU.
_base_ = [
    '../_base_/models/deeplabv3plus_r18_camvid.py',
    '../_base_/datasets/camvid_semi_color.py',
    '../_base_/schedules/adamw_poly.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='FixMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    # As the small check of CamVid, from scratch: a lower threshold and a supervised start, pseudo-labels in
    # eval mode, and one forward for all views.
    semi_train_cfg=dict(
        tau=0.7,
        unlabeled_weight=1.0,
        unlabeled_start=2000,
        label_mode='eval',
        joint_forward=True,
    ),
    semi_test_cfg=dict(predict_on='student'),
)
train_cfg = dict(max_iters=10000, val_interval=1000)
