# ST++'s strong augmentation, with the values of its code. On pseudo-labeled images only, after the geometry
# that all images share. On labeled images it makes results worse.
# Color and sharpness alone, with the same values, are UniMatch's and so FixMatch's, which mix images besides.
color = [
    dict(type='RandomColorJitter'),
    dict(type='RandomGray'),
    dict(type='RandomGaussianBlur'),
]
strong = [*color, dict(type='RandomNoiseCutout')]
