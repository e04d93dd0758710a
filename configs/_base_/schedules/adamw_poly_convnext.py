# As adamw_poly_segformer.py, with the layer decay of MMSegmentation's ConvNeXt-T: each of the 8 steps from the
# head down to the stem learns at 0.9 times the rate of the one above; vectors and biases do not decay.
_base_ = './adamw_poly_segformer.py'
optim_wrapper = dict(
    network_constructor='LearningRateDecayOptimizerConstructor',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
