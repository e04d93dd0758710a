# UniMatch V2, Cityscapes, DINOv2-B with a DPT head: the network of the results in the authors' README
# (LiheYoung/UniMatch-V2), which are in configs/published.csv.
_base_ = [
    './unimatch-v2_dpt_dinov2-s14_4xb4-180e_cityscapes-798x798.py',
    '../_base_/models/dinov2_sizes.py',
]
model = dict(segmentor=_base_.dinov2_b14)
