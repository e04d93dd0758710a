"""Make a semi-supervised config that inherits the config of a supervised training."""

from .checks import check_model, check_samples
from .making import Decision, Made, make_config
from .recipes import METHODS, method_name
from .stock import check_training, check_unlabeled

__all__ = [
    'METHODS',
    'Decision',
    'Made',
    'check_model',
    'check_samples',
    'check_training',
    'check_unlabeled',
    'make_config',
    'method_name',
]
