# As camvid_semi.py, with color jitter, grayscale and blur in the strong view.
_base_ = ['./camvid_semi.py', './strong_augmentation.py']
unlabeled_pipeline = [
    *_base_.unlabeled_pipeline[:-1],
    dict(
        type='MultiBranch',
        weak=[dict(type='PackUnlabeledInputs')],
        strong=[*_base_.color, dict(type='PackUnlabeledInputs')],
    ),
]
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=unlabeled_pipeline)))
