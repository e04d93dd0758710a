# SGD with poly decay as iMAS's code trains Cityscapes: one learning rate for encoder and heads.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
)
# (1 - s / S)^0.9 at step s = 0, ..., S - 1. `end` is left out, so that S is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# The learning rate is for 16 labeled and 16 unlabeled images per step. base_batch_size is their sum; supervised
# configs set 16.
auto_scale_lr = dict(enable=False, base_batch_size=32)
