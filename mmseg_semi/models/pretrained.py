"""``init_cfg=dict(type='Pretrained')`` matches networks, and does not pass over a file that matches nothing."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.model.weight_init import PretrainedInit as StockPretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import nn

from .matching import below, network_weights, networks_in, own_state_dict, told_network
from .segmentors.base import SemiSegmentor

#: Which older checkpoints of batch normalization lack, and torch adds.
COUNTER = 'num_batches_tracked'


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class PretrainedInit(StockPretrainedInit):
    """MMEngine's initialization by a checkpoint, with that of a method as well.

    A checkpoint of a method is taken for one of its network that predicts, unless ``prefix`` names another,
    such as ``student.backbone.``.

    Args: see :class:`mmengine.model.PretrainedInit`.

    Raises:
        ValueError: No weight of the file is one of the module.
    """

    def __call__(self, module: nn.Module) -> None:
        if isinstance(module, SemiSegmentor):  # which finds its networks itself
            return super().__call__(module)
        what = 'model' if self.prefix is None else f'{self.prefix} in model'
        print_log(f'load {what} from: {self.checkpoint}', logger='current')
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location)
        weights, prefix = own_state_dict(checkpoint), self.prefix or ''
        prefix = prefix if prefix.endswith('.') or not prefix else f'{prefix}.'
        if networks_in(weights) and not (prefix and below(weights, prefix)):
            weights, network = network_weights(checkpoint)
            taker = f'{type(module).__name__} with prefix={self.prefix!r}'
            print_log(told_network(checkpoint, network, taker), logger='current')
        taken = below(weights, prefix)
        counted = _CountMissing()
        handle = module.register_load_state_dict_post_hook(counted)
        load_state_dict(module, taken, strict=False, logger='current')
        handle.remove()
        own = [key for key in module.state_dict() if not key.endswith(COUNTER)]
        if counted.number >= len(own):
            start = next(iter(weights), '').rpartition('.')[0]
            raise ValueError(
                f'No weight of {self.checkpoint} is one of {type(module).__name__} with prefix={self.prefix!r} '
                f"of its init_cfg: the file's begin with {start!r}. Set prefix to what they have before the "
                "names of the module's own, such as 'backbone.', or give another file."
            )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


class _CountMissing:
    """How many weights a module misses in the end, after its layers have renamed theirs."""

    number = 0

    def __call__(self, module: nn.Module, incompatible) -> None:
        self.number = sum(not key.endswith(COUNTER) for key in incompatible.missing_keys)
