"""Semi-supervised semantic segmentation inside MMSegmentation.

Importing the package checks the installed OpenMMLab stack and registers every dataset, transform,
segmentor, hook and loop in mmseg's registries, so that configs can name them.
"""

from mmseg_semi.compat import bases  # first: says in one sentence when the stack does not fit
from mmseg_semi.version import __version__

from mmseg_semi import datasets, engine, models, visualization  # isort: skip

__all__ = ['__version__', 'bases', 'datasets', 'engine', 'models', 'visualization']
