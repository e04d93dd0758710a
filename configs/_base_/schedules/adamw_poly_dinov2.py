# AdamW as UniMatch V2 trains DINOv2 (LiheYoung/UniMatch-V2): poly decay, heads forty times faster than the
# encoder, to which the neck's LayerNorm belongs.
_base_ = './adamw_poly.py'
optim_wrapper = dict(
    optimizer=dict(lr=5e-6, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=40.0))),
)

# For 16 labeled and 16 unlabeled images per step; the base counts both.
auto_scale_lr = dict(base_batch_size=32)
