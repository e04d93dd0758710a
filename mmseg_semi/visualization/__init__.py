"""Pictures of what the network sees and says."""

from .panels import colorize, heatmap, overlay, save_panels
from .scores import save_examples, save_histogram

__all__ = ['colorize', 'heatmap', 'overlay', 'save_examples', 'save_histogram', 'save_panels']
