# The supervised baseline of DeS4: without dropout, which DeS4 takes out of its heads.
_base_ = './suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'
model = dict(decode_head=dict(dropout_ratio=0))
