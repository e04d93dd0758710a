# SGD with poly decay as ST++'s code trains: the encoder's learning rate is a tenth of the head's. Cityscapes
# sets 0.004.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NetworkOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
# lr * (1 - s / S)^0.9 at step s = 0, ..., S - 1, which does not reach 0 in the last step. `end` is left out, so
# that it is max_epochs. The length of an epoch is that of the stage's image list.
param_scheduler = [
    dict(
        type='NonzeroPolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]

# The learning rates are for 16 images per step, over all GPUs. `--auto-scale-lr` scales them to the actual
# batch, as ST++'s code does.
auto_scale_lr = dict(enable=False, base_batch_size=16)
