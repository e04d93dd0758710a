# ST++'s strong augmentation, with the values of its code. It is applied to pseudo-labeled images only, after
# the geometric augmentation of all images. On labeled images, it makes results worse. UniMatch and FixMatch use
# the color and sharpness operations with the same values, and also CutMix.
color = [
    dict(type='RandomColorJitter'),
    dict(type='RandomGray'),
    dict(type='RandomGaussianBlur'),
]
strong = [*color, dict(type='RandomNoiseCutout')]
