# ST on images of your own, one GPU: DINOv2-S with a DPT head is the teacher, and SegFormer-B0 is the student.
# See docs/small_network.md for the settings to add. 20000 iterations per training, two trainings.
_base_ = [
    '../_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/own_self_training.py',
    '../_base_/schedules/adamw_poly_segformer.py',
    '../_base_/runtime/st_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
teacher = dict(config='mmseg_semi::suponly/suponly_dpt_dinov2-s14_1xb4-20k_own-518x518.py')
# The learning rates of the schedule are for 32 images per step. This batch has 8 images.
optim_wrapper = dict(optimizer=dict(lr=1.5e-05))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
