# AdamW with poly decay, as UniMatch V2 trains DINOv2 (LiheYoung/UniMatch-V2): the learning rate of the heads is
# forty times that of the encoder. The LayerNorm of the neck belongs to the encoder.
_base_ = './adamw_poly.py'
optim_wrapper = dict(
    optimizer=dict(lr=5e-6, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=40.0))),
)

# The learning rates are for 16 labeled and 16 unlabeled images per step. base_batch_size is their sum.
auto_scale_lr = dict(base_batch_size=32)
