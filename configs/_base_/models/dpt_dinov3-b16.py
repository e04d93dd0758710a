# As dpt_dinov3-s16.py with DINOv3 ViT-B.
_base_ = ['./dpt_dinov3-s16.py', './dinov3_sizes.py']
model = _base_.dinov3_b16
