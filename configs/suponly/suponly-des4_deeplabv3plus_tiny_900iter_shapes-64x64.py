# Supervised only, synthetic shapes: the baseline of DeS4, without dropout, because DeS4 removes it from its
# heads.
_base_ = './suponly_deeplabv3plus_tiny_900iter_shapes-64x64.py'
model = dict(decode_head=dict(dropout_ratio=0))
