# UniMatch, Pascal VOC 2012 classic 1/1 (1464 labeled, 9118 unlabeled): the settings of the paper and its
# code. 4 GPUs with 2 + 2 images each.
_base_ = [
    '../_base_/models/deeplabv3plus_r101_unimatch.py',
    '../_base_/datasets/voc12_unimatch.py',
    '../_base_/schedules/sgd_poly_voc12.py',
    '../_base_/runtime/semi_runtime.py',
]
model = dict(
    _delete_=True,
    type='UniMatch',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_train_cfg=dict(tau=0.95),
    semi_test_cfg=dict(predict_on='student'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # A second strong view with the same transforms as the first.
            pipeline=[
                *_base_.unlabeled_pipeline[:-1],
                dict(_base_.unlabeled_pipeline[-1], strong2=_base_.unlabeled_pipeline[-1].strong),
            ]
        )
    )
)
# The learning rates of the schedule are for 8 labeled and 8 unlabeled images per step.
auto_scale_lr = dict(base_batch_size=16)

# An epoch is a pass over the unlabeled images, 8 per iteration. The model is evaluated and saved after each
# epoch.
train_cfg = dict(type='UnlabeledEpochTrainLoop', epochs=80, val_every=1)
default_hooks = dict(checkpoint=dict(interval='val'))
