# AdamW with poly decay, for small networks that learn from scratch; configs set the learning rate.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
)
# (1 - s / S)^0.9 at step s = 0, ..., S - 1. `end` is left out, so that S is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# The learning rate is for 8 labeled and 8 unlabeled images per step. base_batch_size is their sum; supervised
# configs set 8.
auto_scale_lr = dict(enable=False, base_batch_size=16)
