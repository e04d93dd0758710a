# The supervised baseline of DeS4: without dropout, which DeS4 takes out of its heads.
_base_ = './suponly_deeplabv3plus_r50-d8_1xb8-10k_camvid-480x360.py'
model = dict(decode_head=dict(dropout_ratio=0))
