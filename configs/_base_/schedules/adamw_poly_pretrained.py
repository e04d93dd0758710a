# As adamw_poly.py, for a pre-trained encoder: the learning rate of the head is four times higher.
_base_ = './adamw_poly.py'
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=4.0))),
)
