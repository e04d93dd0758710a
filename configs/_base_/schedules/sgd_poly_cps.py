# SGD with poly decay as CPS's code trains: one learning rate for encoder and heads, no weight decay of
# normalization and biases. Cityscapes sets 0.02.
#
# The learning rates are those of the paper, for training on 8 labeled and 8 unlabeled images per step, on any
# number of GPUs. CPS's code multiplies 0.0025 by its 4 GPUs on VOC, and does not multiply 0.02 on Cityscapes.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# lr * (1 - s / S)^0.9 at step s = 0, ..., S - 1, which does not reach 0 in the last step. `end` is left out, so
# that S is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# base_batch_size counts the loaded images of such a step: 8 labeled and 2 x 8 unlabeled images. CutMix pastes
# half of the unlabeled images into the other half. Without CutMix, or if images are pasted within the batch, 16
# images are loaded: set base_batch_size=16.
auto_scale_lr = dict(enable=False, base_batch_size=24)
