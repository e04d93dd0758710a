# Supervised baseline of DeS4: no dropout, because DeS4 removes it from its heads.
_base_ = './suponly_deeplabv3plus_r18-d8_1xb8-10k_camvid-480x360.py'
model = dict(decode_head=dict(dropout_ratio=0))
