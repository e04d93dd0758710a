"""Load checkpoints of methods and of plain networks through MMEngine's loader."""

from __future__ import annotations

from mmengine.logging import print_log
from torch import Tensor

from ..matching import (
    below,
    check_weights,
    network_weights,
    networks_in,
    same_networks,
    take_out_misfits,
    told_network,
    training_only,
)


class CheckpointLoading:
    """Load a plain checkpoint into every network of a method, and reject other architectures.

    If a checkpoint of another method has all networks of this method, each one loads the network of the same
    name. Otherwise each one loads the network that predicts.

    MMEngine's loader calls ``_load_from_state_dict`` of each module and never ``load_state_dict``. The changes
    here are therefore visible to the children.
    """

    #: Prefixes of renamed modules: old = new.
    renamed_modules: dict[str, str] = {}
    #: Whether a training starts from the matching part of a checkpoint. Otherwise all weights must match.
    loads_partly: bool = False

    def adapt_checkpoint(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Rewrite a checkpoint in place before it is loaded. Methods with special weights override this.

        Args:
            state_dict (dict[str, Tensor]): All weights by key.
            prefix (str): Prefix of this module's keys.
        """

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for old, new in self.renamed_modules.items():
            for key, value in below(state_dict, f'{prefix}{old}').items():
                state_dict[f'{prefix}{new}{key}'] = value
                del state_dict[f'{prefix}{old}{key}']
        self._take_one_network(state_dict, prefix)
        self.adapt_checkpoint(state_dict, prefix)
        names = [prefix + name + '.' for name in self.networks]
        for place, home in type(self).shared_modules.items():
            for key, value in below(state_dict, f'{prefix}{home}.').items():
                state_dict.update({f'{name}{place}.{key}': value for name in names})
        plain = [
            key
            for key in state_dict
            if key.startswith((prefix + 'backbone.', prefix + 'decode_head.'))
        ]
        contained = [
            name
            for name, start in zip(self.networks, names, strict=True)
            if below(state_dict, start)
        ]
        if plain and not contained:
            for key in [key for key in state_dict if key.startswith(prefix)]:
                value = state_dict.pop(key)
                for name in names:
                    state_dict[name + key[len(prefix) :]] = value
        others = tuple(set(training_only()) - set(self.training_only))
        for start in names:
            for key in [k for k in below(state_dict, start) if k.startswith(others)]:
                del state_dict[start + key]
        for name, start in zip(self.networks, names, strict=True):
            own = below(state_dict, start)
            if own and not self.loads_partly:
                self.check_checkpoint(name, own)
        if not any(key.startswith(tuple(names)) for key in state_dict):
            found = sorted({key.partition('.')[0] for key in below(state_dict, prefix)})
            raise ValueError(
                f'The checkpoint has neither a network of {type(self).__name__} nor a plain segmentor. Its '
                f'weights belong to {found[:8]}. Give the checkpoint of a segmentor, or set weights of an '
                "encoder by segmentor.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)."
            )
        for place, home in self.shared_modules.items():
            for key, value in below(state_dict, f'{names[-1]}{place}.').items():
                state_dict[f'{prefix}{home}.{key}'] = value
        if self.loads_partly:
            renewed = self._take_out_misfits(state_dict, prefix)
            contained = [name for name in contained if name not in renewed]
        for name in contained:
            self.on_network_loaded(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _take_one_network(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Reduce a checkpoint with other networks to a plain checkpoint of the network that predicts."""
        weights = below(state_dict, prefix)
        names = networks_in(weights)
        plain = any(key.startswith('backbone.') for key in weights)
        if same_networks(self.networks, names) or not (names or plain):
            return
        checkpoint = {'state_dict': weights}
        taken, network = network_weights(checkpoint)
        if network is not None:
            taker = f'each of {", ".join(self.networks)}'
            print_log(told_network(checkpoint, network, taker), logger='current')
        for key in weights:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in taken.items()})

    def _take_out_misfits(self, state_dict: dict[str, Tensor], prefix: str) -> list[str]:
        """Remove weights with other shapes, and return the networks whose head does not fit or lacks weights.

        If there is one, the counters and thresholds of the method are removed, too. They belong to a head that
        was trained, and the new one is not.
        """
        self.misfits.update(take_out_misfits(self, state_dict, prefix))
        networks = tuple(f'{prefix}{name}.' for name in self.networks)
        renewed = [
            name
            for name in self.networks
            if any(key.startswith(f'{prefix}{name}.decode_head.') for key in self.misfits)
            or self._lacks_head(name, below(state_dict, f'{prefix}{name}.'))
        ]
        if renewed:
            for key in [f'{prefix}{key}' for key in below(state_dict, prefix)]:
                if not key.startswith(networks):
                    del state_dict[key]
        return renewed

    def _lacks_head(self, name: str, weights: dict[str, Tensor]) -> bool:
        """Whether a network's weights, if there are any, lack parameters of its decode head."""
        parameters = dict(getattr(self, name).named_parameters())
        wanted = (
            key
            for key in parameters
            if key.startswith('decode_head.') and not key.startswith(self.training_only)
        )
        return bool(weights) and not weights.keys() >= set(wanted)

    def load_network(self, name: str, checkpoint: dict) -> None:
        """Load the predicting network of any checkpoint into one network of this method.

        Raises:
            ValueError: The weights do not match the network.
        """
        weights, network = network_weights(checkpoint)
        if network is not None:
            print_log(told_network(checkpoint, network, f'the {name}'), logger='current')
        self.check_checkpoint(name, weights)
        getattr(self, name).load_state_dict(weights, strict=False)

    def on_network_loaded(self, name: str) -> None:
        """Called once for each network that a checkpoint contains under its name, with all of its head.

        It is not called for the copies of a plain checkpoint.
        """

    def check_checkpoint(self, name: str, weights: dict[str, Tensor]) -> None:
        """Reject weights that do not match a network.

        Args:
            name (str): Name of the network.
            weights (dict[str, Tensor]): Weights of the checkpoint, by the network's own keys.

        Raises:
            ValueError: A weight has another shape, is missing or is unexpected.
        """
        network = getattr(self, name)
        check_weights(network, weights, name, self.training_only)
        missing = network.state_dict().keys() - weights.keys()
        if any('auxiliary_head' in key for key in missing):
            print_log(
                f'The checkpoint has no auxiliary head. The {name} keeps its initial one.',
                logger='current',
            )


def write_shared_once(module: CheckpointLoading, state_dict: dict, prefix: str, *_) -> None:
    """Hook of ``state_dict`` that keeps the values of a shared module only under its own name."""
    for place in module.shared_modules:
        for name in module.networks:
            for key in below(state_dict, f'{prefix}{name}.{place}.'):
                del state_dict[f'{prefix}{name}.{place}.{key}']
