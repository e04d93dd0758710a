"""Pictures of what the network sees and says."""

from .panels import colorize, heatmap, overlay, save_panels

__all__ = ['colorize', 'heatmap', 'overlay', 'save_panels']
