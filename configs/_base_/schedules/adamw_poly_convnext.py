# As adamw_poly_segformer.py, with the layer decay of MMSegmentation's ConvNeXt-T: heads learn at the rate
# below, the four stages, from the last to the first, at 0.9^3 to 0.9^6 times that, stem and downsampling
# layers at 0.9^7 times; vectors and biases do not decay.
_base_ = './adamw_poly_segformer.py'
optim_wrapper = dict(
    network_constructor='LearningRateDecayOptimizerConstructor',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
