# SGD with poly decay as CPS's code trains: one learning rate for encoder and heads, no weight decay of
# normalisation and biases. Cityscapes sets 0.02.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# lr * (1 - s / S)^0.9 at step s = 0, ..., S - 1, which is not 0 in the last step. `end` is left out, so that S
# is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# For 8 labelled and 2 x 8 unlabelled images a step, over all GPUs; the base counts all.
auto_scale_lr = dict(enable=False, base_batch_size=24)
