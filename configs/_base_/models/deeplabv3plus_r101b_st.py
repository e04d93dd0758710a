# As deeplabv3plus_r50b_st.py, with ResNet-101.
_base_ = './deeplabv3plus_r50b_st.py'
model = dict(pretrained='torchvision://resnet101', backbone=dict(depth=101))
