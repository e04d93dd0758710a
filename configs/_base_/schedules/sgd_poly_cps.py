# SGD with poly decay as CPS's code trains: one learning rate for encoder and heads, no weight decay of
# normalization and biases. Cityscapes sets 0.02.
#
# The rates are the printed ones, for 8 labeled and 8 learned unlabeled images per step on any number of GPUs.
# CPS's code reaches 0.01 on VOC by multiplying 0.0025 by its 4 GPUs, and takes 0.02 on Cityscapes as it is.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# lr * (1 - s / S)^0.9 at step s = 0, ..., S - 1, which is not 0 in the last step. `end` is left out, so that S
# is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# The base counts what is loaded for such a step: 8 labeled and 2 x 8 unlabeled images, of which half are pasted
# into the others. Without CutMix, or with partners in the batch, 16 are loaded: set base_batch_size=16 there.
auto_scale_lr = dict(enable=False, base_batch_size=24)
