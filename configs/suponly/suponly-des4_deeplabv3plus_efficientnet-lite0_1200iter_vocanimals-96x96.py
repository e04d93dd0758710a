# Supervised only, VOC animals: the baseline of DeS4, without dropout, because DeS4 removes it from its heads.
_base_ = './suponly_deeplabv3plus_efficientnet-lite0_1200iter_vocanimals-96x96.py'
model = dict(decode_head=dict(dropout_ratio=0))
