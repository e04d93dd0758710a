"""Functions of torch tensors, one per published equation.

This package does not depend on MMSegmentation, configs or the rest of mmseg_semi. Integer maps are int64 with
255 = void. No function edits its arguments. Half precision is computed in float32, also under autocast.
Functions for training steps do not wait for the device, except one that says so.
"""

from . import (
    agreement,
    contrast,
    correlation,
    losses,
    mixing,
    parts,
    perturbation,
    prototypes,
    pseudo_label,
    reliability,
    resizing,
    sampling,
    schedules,
    soft_label,
    top_k,
)

__all__ = [
    'agreement',
    'contrast',
    'correlation',
    'losses',
    'mixing',
    'parts',
    'perturbation',
    'prototypes',
    'pseudo_label',
    'reliability',
    'resizing',
    'sampling',
    'schedules',
    'soft_label',
    'top_k',
]
