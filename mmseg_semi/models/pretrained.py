"""``init_cfg=dict(type='Pretrained')`` for checkpoints of methods, with an error if nothing matches."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.model.weight_init import PretrainedInit as StockPretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import nn

from .matching import below, network_weights, networks_in, own_state_dict, told_network
from .segmentors.base import SemiSegmentor

#: Buffer of batch normalization that older checkpoints lack. torch adds it.
COUNTER = 'num_batches_tracked'


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class PretrainedInit(StockPretrainedInit):
    """MMEngine's initialization from a checkpoint, extended to checkpoints of methods.

    It loads the network that predicts, unless ``prefix`` selects another one, such as ``student.backbone.``.

    Args: see :class:`mmengine.model.PretrainedInit`.

    Raises:
        ValueError: No weight of the file matches the module.
    """

    def __call__(self, module: nn.Module) -> None:
        if isinstance(module, SemiSegmentor):  # it matches its networks itself
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
                f'No weight of {self.checkpoint} matches {type(module).__name__} with prefix={self.prefix!r} '
                f'in its init_cfg. The weights of the file begin with {start!r}. Set prefix to the part before '
                "the names of the module's weights, such as 'backbone.', or give another file."
            )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


class _CountMissing:
    """Count the weights that are missing after the layers of a module have renamed theirs."""

    number = 0

    def __call__(self, module: nn.Module, incompatible) -> None:
        self.number = sum(not key.endswith(COUNTER) for key in incompatible.missing_keys)
