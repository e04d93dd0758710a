# SGD with poly decay as iMAS's code trains Pascal VOC: the encoder's learning rate is a tenth of the heads'.
optim_wrapper = dict(
    type='OptimWrapper',
    # Only the student is optimized, with any constructor. Stock models are optimized as usual.
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=1e-4),
    # Matches the auxiliary head's parameters, too.
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
# lr * (1 - s / S)^0.9 at step s = 0, ..., S - 1, which does not reach 0 in the last step. `end` is left out, so
# that S is the length of the training.
param_scheduler = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]

# These learning rates are for 16 labeled and 16 unlabeled images per step, over all GPUs. base_batch_size is
# their sum; supervised configs set 16. `--auto-scale-lr` scales the learning rates to the actual batch.
auto_scale_lr = dict(enable=False, base_batch_size=32)
