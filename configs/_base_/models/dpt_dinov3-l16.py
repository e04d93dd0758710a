# As dpt_dinov3-s16.py with DINOv3 ViT-L.
_base_ = ['./dpt_dinov3-s16.py', './dinov3_sizes.py']
model = _base_.dinov3_l16
