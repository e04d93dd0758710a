"""Images of inputs, predictions and training curves."""

from .class_distribution import read_distributions, save_distribution
from .comparison import Estimate, save_comparison
from .curves import read_curves, save_curves
from .panels import as_pictures, colorize, heatmap, overlay, save_panels
from .parts import EMBEDDINGS, color_counts, color_parts, embed, save_scatter
from .scalars import read_scalars, read_series
from .scores import save_examples, save_histogram

__all__ = [
    'EMBEDDINGS',
    'Estimate',
    'as_pictures',
    'color_counts',
    'color_parts',
    'colorize',
    'embed',
    'heatmap',
    'overlay',
    'read_curves',
    'read_distributions',
    'read_scalars',
    'read_series',
    'save_comparison',
    'save_curves',
    'save_distribution',
    'save_examples',
    'save_histogram',
    'save_panels',
    'save_scatter',
]
