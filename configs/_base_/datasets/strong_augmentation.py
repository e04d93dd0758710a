# ST++'s strong augmentation, with the values of its code. On pseudo-labelled images only, after the geometry
# that all images share: on labelled images it hurts.
strong = [
    dict(type='RandomColorJitter'),
    dict(type='RandomGray'),
    dict(type='RandomGaussianBlur'),
    dict(type='RandomNoiseCutout'),
]
