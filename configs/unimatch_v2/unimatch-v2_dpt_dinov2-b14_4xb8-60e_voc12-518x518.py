# UniMatch V2, Pascal VOC 2012, DINOv2-B with a DPT head: the network of the results in the authors' README
# (LiheYoung/UniMatch-V2), which are in configs/published.csv.
_base_ = [
    './unimatch-v2_dpt_dinov2-s14_4xb8-60e_voc12-518x518.py',
    '../_base_/models/dinov2_sizes.py',
]
model = dict(segmentor=_base_.dinov2_b14)
