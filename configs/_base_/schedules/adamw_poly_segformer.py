# AdamW with warm-up and linear decay, as MMSegmentation trains SegFormer: the learning rate of the heads is ten
# times higher, and normalizations and position embeddings have no weight decay.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_block=dict(decay_mult=0.0), norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0)
        )
    ),
)
# The decay starts from the full learning rate after the warm-up, as in MMSegmentation, and does not reach 0 in
# the last iteration. `end` is left out, so that it is the length of the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='NonzeroPolyLR', power=1.0, eta_min=0.0, begin=1500, by_epoch=False),
]

# The learning rates are for 16 labeled and 16 unlabeled images per step. base_batch_size is their sum.
auto_scale_lr = dict(enable=False, base_batch_size=32)
