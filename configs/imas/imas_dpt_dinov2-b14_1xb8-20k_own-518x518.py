# iMAS, paper reading, on images of your own, one GPU, DINOv2-B with a DPT head.
_base_ = ['./imas_dpt_dinov2-s14_1xb8-20k_own-518x518.py', '../_base_/models/dinov2_sizes.py']
model = dict(segmentor=_base_.dinov2_b14)
