# ESL on images of your own, one GPU, DINOv2-B with a DPT head: See "Your own data" in README.md for the
# settings to add. The paper does not use this network. The learning rates are those of UniMatch V2.
_base_ = [
    '../_base_/models/dpt_dinov2-b14.py',
    '../_base_/datasets/own_semi_518.py',
    '../_base_/schedules/adamw_poly_dinov2.py',
    '../_base_/runtime/esl_runtime.py',
]
custom_imports = dict(imports=['mmseg_semi', 'mmpretrain.models'])
model = dict(
    _delete_=True,
    type='ESL',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='MultiBranchDataPreprocessor', size=_base_.crop_size
    ),
    segmentor=_base_.model,
    semi_test_cfg=dict(predict_on='teacher'),
)
train_dataloader = dict(
    dataset=dict(
        unlabeled=dict(
            # CutMix is the only strong augmentation.
            pipeline=[*_base_.unlabeled_pipeline[:-1], dict(type='PackUnlabeledInputs')]
        )
    )
)
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=1.25e-06))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
