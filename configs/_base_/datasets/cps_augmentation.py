# The geometric augmentation of CPS's code before the crop: one of six scales, relative to the size of the
# image, and a flip.
scale_and_flip = [
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True)]
            for r in (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
        ],
    ),
    dict(type='RandomFlip', prob=0.5),
]
