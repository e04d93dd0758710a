# As adamw_poly_segformer.py, with the layer decay of MMSegmentation's ConvNeXt-T: the heads have the learning
# rate below, the four stages 0.9^3 to 0.9^6 times that (from the last to the first), and the stem and the
# downsampling layers 0.9^7 times. Vectors and biases have no weight decay.
_base_ = './adamw_poly_segformer.py'
optim_wrapper = dict(
    network_constructor='LearningRateDecayOptimizerConstructor',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
