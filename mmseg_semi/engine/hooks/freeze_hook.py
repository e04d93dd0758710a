"""Freeze parts of the networks."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.segmentors import SemiSegmentor
from ._common import rewrapped, unwrap


@HOOKS.register_module()
class FreezeHook(Hook):
    """Freeze modules: no gradients, no updates, and no batch statistics.

    Their parameters have no gradients, so the optimizer does not change them, not even by weight decay, and the
    backward pass stops there. They stay in eval mode, so that batch normalization uses and keeps the running
    statistics of the checkpoint, and dropout is disabled. In a semi-supervised method the hook freezes the
    modules of all networks; an EMA teacher then keeps the same values. Checkpoints do not store the frozen
    state. A resumed run reads it from its config.

    To save time, list the first modules of the encoder without a gap::

        # EfficientNet in TIMMBackbone, up to stride 4
        modules = [f'backbone.timm_model.{m}' for m in ('conv_stem', 'bn1', 'blocks.0', 'blocks.1')]
        # ResNetV1c, up to stride 4
        modules = ['backbone.stem', 'backbone.layer1']

    Args:
        modules (Sequence[str]): Names of modules in a network, which is an MMSegmentation segmentor.

    Raises:
        ValueError: The list is empty, or a network does not have a module of this name.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        if isinstance(modules, str) or not modules:
            raise ValueError(
                f"FreezeHook.modules={modules!r} must be a list of names, such as ['backbone.layer1']."
            )
        self.modules = tuple(modules)

    def before_train(self, runner) -> None:
        with rewrapped(runner) as model:
            for module in self._find(model):
                module.requires_grad_(False)

    def before_train_epoch(self, runner) -> None:
        # Not in before_train, where other hooks may still replace layers (SyncBN, see rewrapped).
        self._frozen = self._find(unwrap(runner.model))

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        # The training loop puts all modules into train mode before each iteration.
        for module in self._frozen:
            module.eval()

    def _find(self, model) -> list:
        networks = {'': model}
        if isinstance(model, SemiSegmentor):
            networks = {f'{name}.': getattr(model, name) for name in model.networks}
        found = []
        for start, network in networks.items():
            modules = dict(network.named_modules())
            for name in self.modules:
                if name not in modules:
                    near = name.rpartition('.')[0]
                    children = [key for key, _ in modules.get(near, network).named_children()]
                    raise ValueError(
                        f'FreezeHook.modules={name!r} is not a module of {start or "the model"}. '
                        f'Choose from those of {near or "the model"}: {", ".join(children)}.'
                    )
                found.append(modules[name])
        return found
