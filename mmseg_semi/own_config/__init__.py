"""Make a semi-supervised config that inherits the config of a supervised training."""

from .checks import check_model, check_samples
from .making import Decision, Made, make_config
from .recipes import FOR_PRETRAINED, FROM_SCRATCH, METHODS, default_method, method_name
from .stock import check_training, check_unlabeled

__all__ = [
    'FOR_PRETRAINED',
    'FROM_SCRATCH',
    'METHODS',
    'Decision',
    'Made',
    'check_model',
    'check_samples',
    'check_training',
    'check_unlabeled',
    'default_method',
    'make_config',
    'method_name',
]
