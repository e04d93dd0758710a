# As adamw_poly.py, for the high learning rate of the synthetic shapes: 50 iterations of linear warm-up.
_base_ = './adamw_poly.py'
optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, begin=0, end=50, by_epoch=False),
    dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=50, by_epoch=False),
]
