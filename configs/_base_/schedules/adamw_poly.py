# AdamW with poly decay, for small networks that learn from scratch; configs set the learning rate.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
)
# `end` is left out, so that it is train_cfg.max_iters.
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# For 8 labelled and 8 unlabelled images a step; the base counts both, supervised-only configs set 8.
auto_scale_lr = dict(enable=False, base_batch_size=16)
