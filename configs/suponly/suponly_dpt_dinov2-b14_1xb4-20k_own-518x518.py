# Supervised only on labeled images of your own, one GPU, DINOv2-B with a DPT head: the baseline of
# imas_dpt_dinov2-b14_1xb8-20k_own-518x518.py.
_base_ = ['./suponly_dpt_dinov2-s14_1xb4-20k_own-518x518.py', '../_base_/models/dinov2_sizes.py']
model = _base_.dinov2_b14
