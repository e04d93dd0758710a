# As dpt_dinov2-s14.py with DINOv2-L.
_base_ = ['./dpt_dinov2-s14.py', './dinov2_sizes.py']
model = _base_.dinov2_l14
