"""The ground floor: one published equation, one function of torch tensors.

Nothing here knows of MMSegmentation, of configs or of the rest of the package. Integer maps are int64
with 255 = void, no function edits its arguments, half precision is computed in float32 (also under
autocast), and nothing that runs inside a training step waits for the device (but the one function
that says so).
"""

from . import (
    agreement,
    contrast,
    losses,
    mixing,
    parts,
    perturbation,
    prototypes,
    pseudo_label,
    reliability,
    sampling,
    schedules,
    soft_label,
    top_k,
)

__all__ = [
    'agreement',
    'contrast',
    'losses',
    'mixing',
    'parts',
    'perturbation',
    'prototypes',
    'pseudo_label',
    'reliability',
    'sampling',
    'schedules',
    'soft_label',
    'top_k',
]
