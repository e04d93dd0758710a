# Supervised only, CamVid 1/16 at 128 x 96: the baseline of DeS4, without dropout, because DeS4 removes it from
# its heads.
_base_ = './suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'
model = dict(decode_head=dict(dropout_ratio=0))
