"""Checkpoints of methods and of plain networks, as MMEngine's loader brings them."""

from __future__ import annotations

from mmengine.logging import print_log
from torch import Tensor, nn


class CheckpointLoading:
    """Gives a plain checkpoint to every network of a method, and refuses one of another architecture.

    MMEngine's loader calls ``_load_from_state_dict`` of each module and never ``load_state_dict``; what is
    rewritten here is what the children see.
    """

    #: Prefixes of modules that have another name since a checkpoint was saved: old = new.
    renamed_modules: dict[str, str] = {}

    def adapt_checkpoint(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Rewrite a checkpoint in place before it is loaded, where a method needs more than this class does.

        Args:
            state_dict (dict[str, Tensor]): All weights by key.
            prefix (str): Of this module's keys.
        """

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for old, new in self.renamed_modules.items():
            for key, value in _below(state_dict, f'{prefix}{old}').items():
                state_dict[f'{prefix}{new}{key}'] = value
                del state_dict[f'{prefix}{old}{key}']
        self.adapt_checkpoint(state_dict, prefix)
        names = [prefix + name + '.' for name in self.networks]
        for place, home in type(self).shared_modules.items():
            for key, value in _below(state_dict, f'{prefix}{home}.').items():
                state_dict.update({f'{name}{place}.{key}': value for name in names})
        plain = [
            key
            for key in state_dict
            if key.startswith((prefix + 'backbone.', prefix + 'decode_head.'))
        ]
        if plain and not any(key.startswith(tuple(names)) for key in state_dict):
            for key in [key for key in state_dict if key.startswith(prefix)]:
                value = state_dict.pop(key)
                for name in names:
                    state_dict[name + key[len(prefix) :]] = value
        for name, start in zip(self.networks, names, strict=True):
            own = _below(state_dict, start)
            if own:
                self.check_checkpoint(name, own)
                self.on_network_loaded(name)
        for place, home in self.shared_modules.items():
            for key, value in _below(state_dict, f'{names[-1]}{place}.').items():
                state_dict[f'{prefix}{home}.{key}'] = value
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def on_network_loaded(self, name: str) -> None:
        """Called once for each network whose weights a checkpoint brings."""

    def check_checkpoint(self, name: str, weights: dict[str, Tensor]) -> None:
        """Refuse weights that do not fit a network.

        Args:
            name (str): Of the network.
            weights (dict[str, Tensor]): Of the checkpoint, by the network's own keys.

        Raises:
            ValueError: A weight has another shape, is missing or is left over.
        """
        network = getattr(self, name).state_dict()
        resized = _resized_at_loading(getattr(self, name))
        for key, value in weights.items():
            if key in network and network[key].shape != value.shape and key not in resized:
                raise ValueError(
                    f"the checkpoint's '{key}' has shape {tuple(value.shape)} but the {name} of this config "
                    f'{tuple(network[key].shape)}: load a checkpoint of the same architecture and classes.'
                )
        # Counters and auxiliary heads come and go between training and published checkpoints.
        optional = (
            'num_batches_tracked',
            'auxiliary_head',
            'data_preprocessor',
            *self.training_only,
        )
        unmatched = [
            key for key in network.keys() ^ weights.keys() if not any(o in key for o in optional)
        ]
        if unmatched:
            key = sorted(unmatched)[0]
            where = 'the checkpoint' if key in weights else f'the {name} of this config'
            raise ValueError(
                f"the checkpoint and the {name} differ in {len(unmatched)} weights, e.g. '{key}', which only "
                f'{where} has: load a checkpoint of the same architecture.'
            )
        auxiliary = [key for key in network if 'auxiliary_head' in key and key not in weights]
        if auxiliary:
            print_log(
                f'The checkpoint has no auxiliary head: the {name} starts with its own.',
                logger='current',
            )


def _resized_at_loading(network: nn.Module) -> set[str]:
    """Position embeddings that their module interpolates to its own grid when it loads them."""
    return {
        f'{name}.pos_embed'
        for name, module in network.named_modules()
        if hasattr(module, '_prepare_pos_embed')
    }


def write_shared_once(module: CheckpointLoading, state_dict: dict, prefix: str, *_) -> None:
    """Hook of ``state_dict`` that leaves a shared module's values under its own name alone."""
    for place in module.shared_modules:
        for name in module.networks:
            for key in _below(state_dict, f'{prefix}{name}.{place}.'):
                del state_dict[f'{prefix}{name}.{place}.{key}']


def _below(state_dict: dict, start: str) -> dict[str, Tensor]:
    """The values whose keys begin with ``start``, by the rest of their keys."""
    return {key[len(start) :]: v for key, v in state_dict.items() if key.startswith(start)}
