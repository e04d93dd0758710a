"""Pictures of what the network sees and says."""

from .class_distribution import read_distributions, save_distribution
from .panels import colorize, heatmap, overlay, save_panels
from .scores import save_examples, save_histogram

__all__ = [
    'colorize',
    'heatmap',
    'overlay',
    'read_distributions',
    'save_distribution',
    'save_examples',
    'save_histogram',
    'save_panels',
]
