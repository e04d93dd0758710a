"""Semi-supervised semantic segmentation inside MMSegmentation.

Importing the package checks the installed OpenMMLab stack and registers every dataset, transform, segmentor,
hook and loop in mmseg's registries, so that configs can name them.
"""

# The check of the stack comes first: what follows imports it.
from mmseg_semi.compat import bases  # isort: skip
from mmseg_semi import datasets, engine, functional, models, self_training
from mmseg_semi.version import __version__

__all__ = ['__version__', 'bases', 'datasets', 'engine', 'functional', 'models', 'self_training']
