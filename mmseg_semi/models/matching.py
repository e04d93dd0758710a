"""Match the networks of a checkpoint with those of a model.

A checkpoint of a method has several networks, such as ``student.backbone.…`` and ``teacher.backbone.…``. A
checkpoint of a plain segmentor does not have these prefixes. If the networks of model and checkpoint differ,
the model loads the network that predicts. MMEngine alone would load nothing and continue with random weights.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable, Mapping, Sequence

from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor, nn

#: Weights that may be missing or additional in published checkpoints: counters, auxiliary heads, units.
OPTIONAL = ('num_batches_tracked', 'auxiliary_head', 'data_preprocessor')
#: Fraction of an encoder's values that a checkpoint must contain. Adapters such as LoRA add only a few.
ENCODER_SHARE = 0.8
#: Maximum number of weights listed in a message.
NAMED = 3


# ------------------------------------------------------------------ networks of a checkpoint
def below(state_dict: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Select the values with prefix ``start`` and remove the prefix from their keys."""
    return {key[len(start) :]: v for key, v in state_dict.items() if key.startswith(start)}


def own_state_dict(checkpoint: dict) -> dict[str, Tensor]:
    """Return the weights of a checkpoint or state dict, without the prefix of DistributedDataParallel."""
    weights = checkpoint.get('state_dict', checkpoint)
    if not any(key.startswith('module.') for key in weights):
        return weights
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def networks_in(state_dict: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the networks in the weights of a method; empty for a plain segmentor."""
    starts = (key.partition('.backbone.') for key in state_dict)
    return tuple(dict.fromkeys(name for name, dot, _ in starts if dot and '.' not in name))


def same_networks(networks: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a method with ``networks`` loads each network from a checkpoint with ``names`` by name."""
    return set(networks) <= set(names) and (len(networks) > 1 or len(names) == 1)


def trained_method(checkpoint: dict) -> tuple[str | None, str | None]:
    """Return model type and predicting network from the config in a checkpoint, if it defines them.

    The config is a program. It is parsed, but never run.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    try:
        tree = ast.parse(text) if isinstance(text, str) else ast.Module([], [])
    except (SyntaxError, ValueError):
        return None, None
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == 'model':
            model = _entries(node.value)
            prediction = _entries(model.get('semi_test_cfg'))
            return _constant(model.get('type')), _constant(prediction.get('predict_on'))
    return None, None


def _entries(node: ast.expr | None) -> dict[str, ast.expr]:
    """Return the entries of ``dict(a=...)`` or ``{'a': ...}``."""
    if isinstance(node, ast.Call):
        return {entry.arg: entry.value for entry in node.keywords if entry.arg}
    if isinstance(node, ast.Dict):
        return {_constant(key): value for key, value in zip(node.keys, node.values, strict=True)}
    return {}


def _constant(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _methods() -> list[type]:
    return [kind for kind in MODELS.module_dict.values() if hasattr(kind, 'default_predictor')]


def training_only() -> tuple[str, ...]:
    """Return the prefixes of weights that networks of any method need only in training."""
    return tuple(sorted({prefix for method in _methods() for prefix in method.training_only}))


def predicting_network(checkpoint: dict) -> str | None:
    """Return the name of the predicting network in a checkpoint; None for a plain segmentor.

    The name comes from the config in the checkpoint. Without one, it comes from the methods with the same
    networks.

    Raises:
        ValueError: The predicting network is unknown.
    """
    names = networks_in(own_state_dict(checkpoint))
    if len(names) <= 1:
        return names[0] if names else None
    kind, named = trained_method(checkpoint)
    method = MODELS.get(kind) if kind else None
    candidates = [method] if hasattr(method, 'default_predictor') else _methods()
    predictors = {m.default_predictor for m in candidates if set(m.networks) == set(names)}
    found = {named} if named else predictors
    if len(found) != 1 or not found <= set(names):
        raise ValueError(
            f'The checkpoint has the networks {", ".join(names)} but does not say which of them predicts. '
            'Export one with tools/export.py CONFIG CHECKPOINT OUT_DIR --network NAME, and use the result.'
        )
    return found.pop()


def plain_state_dict(
    state_dict: dict,
    network: str | None,
    training_only: Sequence[str] = (),
    shared_modules: Mapping[str, str] | None = None,
) -> dict:
    """Return the weights of one network under the keys of the stock segmentor.

    Args:
        state_dict (dict): Weights of a method, or of a stock segmentor with ``network=None``.
        network (str, optional): Name of the network, e.g. ``teacher``.
        training_only (sequence of str): Prefixes of weights to leave out, see the method's ``training_only``.
        shared_modules (mapping, optional): Modules that all networks share, see the method's
            ``shared_modules``.

    Raises:
        ValueError: The checkpoint does not contain the network.
    """
    if network is None:
        return dict(state_dict)
    weights = below(state_dict, f'{network}.')
    if not weights:
        found = list(networks_in(state_dict)) or sorted(
            {key.partition('.')[0] for key in state_dict}
        )
        raise ValueError(
            f"the checkpoint has no network '{network}', its weights belong to {found}. Give a checkpoint of "
            'this config, or another --network.'
        )
    for place, home in (shared_modules or {}).items():
        # If a network has its own values there, the module is not shared.
        if not any(key.startswith(f'{place}.') for key in weights):
            weights |= {f'{place}.{key}': v for key, v in below(state_dict, f'{home}.').items()}
    dropped = tuple(training_only)
    return {key: value for key, value in weights.items() if not key.startswith(dropped)}


def network_weights(checkpoint: dict, network: str | None = None) -> tuple[dict, str | None]:
    """Return the weights of one network of any checkpoint, under the keys of the stock segmentor.

    Args:
        checkpoint (dict): Checkpoint of a method or of a plain segmentor.
        network (str, optional): Name of the network. Default: the one that predicts.

    Returns:
        tuple: The weights, without those for training only, and the network's name, None for a plain segmentor.

    Raises:
        ValueError: The network does not exist, or the predicting network is unknown.
    """
    weights = own_state_dict(checkpoint)
    network = network or predicting_network(checkpoint)
    if network is None:
        # The EMAHook of mmcv 1 added weights such as `ema_backbone_conv1_weight`.
        stray = {key for key in weights if key.startswith('ema_') and '.' not in key}
        kept = {k: v for k, v in weights.items() if k not in stray} if stray else weights
        return kept, None
    shared = {place: home for m in _methods() for place, home in m.shared_modules.items()}
    return plain_state_dict(weights, network, training_only(), shared), network


def told_network(checkpoint: dict, network: str, taker: str) -> str:
    """Return a line for the log on the network that is loaded from a checkpoint."""
    names = ', '.join(networks_in(own_state_dict(checkpoint)))
    kind = trained_method(checkpoint)[0]
    of = f' of {kind}' if kind else ''
    return (
        f'The checkpoint{of} has the networks {names}: {taker} loads the {network}, which predicts.'
    )


# ------------------------------------------------------------------ matching weights
def resized_at_loading(network: nn.Module) -> set[str]:
    """Return the keys of position embeddings that their module resizes when it loads them."""
    return {
        f'{name}.pos_embed'
        for name, module in network.named_modules()
        if hasattr(module, '_prepare_pos_embed')
    }


def check_weights(
    network: nn.Module, weights: dict[str, Tensor], name: str, training_only: Sequence[str] = ()
) -> None:
    """Reject weights that do not match a network.

    Args:
        network (nn.Module): The network.
        weights (dict[str, Tensor]): Weights by the keys of the network.
        name (str): Name of the network in errors.
        training_only (sequence of str): Prefixes of weights that may be missing or unexpected.

    Raises:
        ValueError: A weight has another shape, is missing or is unexpected.
    """
    own = network.state_dict()
    resized = resized_at_loading(network)
    for key, value in weights.items():
        if key in own and own[key].shape != value.shape and key not in resized:
            raise ValueError(
                f"the checkpoint's '{key}' has shape {tuple(value.shape)} but the {name} of this config "
                f'needs {tuple(own[key].shape)}. Load a checkpoint of the same architecture and classes.'
            )
    optional = (*OPTIONAL, *training_only)
    unmatched = [key for key in own.keys() ^ weights.keys() if not any(o in key for o in optional)]
    if unmatched:
        key = sorted(unmatched)[0]
        where = 'the checkpoint' if key in weights else f'the {name} of this config'
        raise ValueError(
            f'the checkpoint and the {name} differ in {len(unmatched)} weights. For example, only {where} has '
            f"'{key}'. Load a checkpoint of the same architecture."
        )


def take_out_misfits(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str = ''
) -> dict[str, tuple[tuple, tuple]]:
    """Remove weights with another shape than in a module.

    The buffers of modules without parameters, such as memories and prototypes, belong together. If one of them
    has another shape, all are removed.

    Args:
        module (nn.Module): The module that will load the weights.
        state_dict (dict[str, Tensor]): Weights, edited in place.
        prefix (str): Prefix of the module's keys.

    Returns:
        dict: Shapes of the removed weights in the checkpoint and in the module, by key.
    """
    resized, misfits = resized_at_loading(module), {}
    for path, part in module.named_modules(remove_duplicate=False):
        start = f'{path}.' if path else ''
        own = {k: v for k, v in (part._parameters | part._buffers).items() if v is not None}
        shapes = {
            key: (tuple(state_dict[prefix + start + key].shape), tuple(value.shape))
            for key, value in own.items()
            if prefix + start + key in state_dict and start + key not in resized
        }
        other = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
        gone = (
            shapes if other and not any(p is not None for p in part._parameters.values()) else other
        )
        for key, pair in gone.items():
            misfits[prefix + start + key] = pair
            del state_dict[prefix + start + key]
    return misfits


class LoadingReport:
    """Check once what MMEngine's loader could not load; a hook of ``register_load_state_dict_post_hook``.

    A module may rename or resize weights while it loads them, as the layers of LoRA do. Therefore only the
    loader knows which weights are missing.

    Args:
        file (str): Path of the checkpoint in messages.
        networks (dict[str, str]): Prefixes of the networks' keys by network.
        misfits (dict): Result of :func:`take_out_misfits`.
        partly (bool): Whether a training starts from the matching weights. Otherwise a network is resumed or
            evaluated, and all weights must match.
    """

    def __init__(self, file: str, networks: dict[str, str], misfits: dict, partly: bool) -> None:
        self.file, self.networks, self.misfits, self.partly = file, networks, misfits, partly
        self._done = False

    def __call__(self, model: nn.Module, incompatible) -> None:
        """Log the weights that do not match in one line, instead of MMEngine's list of all keys.

        Raises:
            ValueError: Too few weights match.
        """
        if self._done:
            return
        self._done = True
        own = model.state_dict()
        # Weights that a module does not save, such as frozen ones, are not missing. Neither are the counters
        # and memories of a method, and those of another method are not unexpected.
        starts = tuple(self.networks.values())
        missing = [
            key
            for key in incompatible.missing_keys
            if key in own and OPTIONAL[0] not in key
            if key in self.misfits or key.startswith(starts)
        ]
        unexpected = [
            key
            for key in incompatible.unexpected_keys
            if key.startswith(starts) and not self._optional(key)
        ]
        incompatible.missing_keys.clear()
        incompatible.unexpected_keys.clear()
        unfit = [self._told(k) for k in missing if k in self.misfits]
        absent = [key for key in missing if key not in self.misfits]
        parts = [
            f'{len(keys)} {what} ({", ".join(keys[:NAMED])}{", …" * (len(keys) > NAMED)})'
            for what, keys in (
                ('have another shape', unfit),
                ('are not in it', absent),
                ('are not in the model', unexpected),
            )
            if keys
        ]
        bad = [k for k in (*missing, *unexpected) if not self._optional(k)]
        if bad and not self.partly:
            raise ValueError(
                f'{self.file} does not fit the network of this config ({"; ".join(parts)}). Give a checkpoint '
                'of this config with the same classes.'
            )
        for name, prefix in self.networks.items():
            self._check(name, prefix, own, missing, parts)
        if parts:
            kept = 'The model keeps its initial values of these'
            print_log(
                f'Only the matching weights of {self.file} are loaded ({"; ".join(parts)}). {kept}.',
                logger='current',
                level=logging.WARNING,
            )

    def _optional(self, key: str) -> bool:
        return any(part in key for part in OPTIONAL)

    def _told(self, key: str) -> str:
        saved, own = self.misfits[key]
        return f'{key} {saved} in the file and {own} here'

    def _check(
        self, name: str, prefix: str, own: dict, missing: list[str], parts: list[str]
    ) -> None:
        """Reject a checkpoint without the complete encoder of a network."""
        lost = set(missing)
        encoder = [key for key in own if key.startswith(f'{prefix}backbone.')]
        total = sum(own[key].numel() for key in encoder)
        loaded = sum(own[key].numel() for key in encoder if key not in lost)
        if total and loaded < ENCODER_SHARE * total:
            raise ValueError(
                f'{self.file} has {loaded / total:.0%} of the encoder of the {name} of this config '
                f'({"; ".join(parts)}). Give a checkpoint of a segmentor with the same backbone, or set weights'
                " of an encoder by backbone.init_cfg=dict(type='Pretrained', checkpoint=...)."
            )
