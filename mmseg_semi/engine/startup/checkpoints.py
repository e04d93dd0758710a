"""What a run loads is matched to its model, and a network that was not loaded is never scored."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import nn

from ...models.matching import (
    LoadingReport,
    network_weights,
    networks_in,
    own_state_dict,
    same_networks,
    take_out_misfits,
    told_network,
    trained_method,
)
from ...models.segmentors.base import SemiSegmentor
from ..hooks._common import is_training, unwrap


def match_checkpoint(runner, checkpoint: dict) -> None:
    """Make of a checkpoint that a Runner is about to load one of the networks of its model.

    A checkpoint of a method brings a plain model, or a method with other networks, the network that predicts. A
    training that starts from a checkpoint (``load_from``) takes what fits and lists the rest in one line. To be
    tested or resumed, all networks must be loaded.

    Args:
        runner (Runner): With its model.
        checkpoint (dict): Edited in place.

    Raises:
        ValueError: It does not fit, or one to resume from is another model's.
    """
    model = unwrap(runner.model)
    file = runner._load_from or 'the checkpoint'
    trains = is_training(runner)
    names = networks_in(own_state_dict(checkpoint))
    if runner._resume and trains:
        _check_same_model(model, checkpoint, names, file)
    semi = isinstance(model, SemiSegmentor)
    weights = own_state_dict(checkpoint)
    if not (semi and same_networks(model.networks, names)):
        weights, network = network_weights(checkpoint)
        if network is not None:
            taker = f'each of {", ".join(model.networks)}' if semi else type(model).__name__
            runner.logger.info(told_network(checkpoint, network, taker))
    partly = trains and not runner._resume
    if semi:
        model.loads_partly, model.misfits = partly, {}
        misfits, networks = model.misfits, {name: f'{name}.' for name in model.networks}
    else:
        misfits, networks = take_out_misfits(model, weights), {'network': ''}
    if partly or not semi:
        report = LoadingReport(file, networks, misfits, partly)
        model.register_load_state_dict_post_hook(report)
    if 'state_dict' in checkpoint:
        checkpoint['state_dict'] = weights
    elif weights is not checkpoint:
        checkpoint.clear()
        checkpoint.update(weights)


def _check_same_model(
    model: nn.Module, checkpoint: dict, names: tuple[str, ...], file: str
) -> None:
    """Refuse to resume with the optimizer, the history and the iteration count of another method."""
    networks = model.networks if isinstance(model, SemiSegmentor) else ()
    kind = trained_method(checkpoint)[0]
    known = MODELS.get(kind) if kind and names else None
    if set(names) != set(networks) or (known is not None and type(model) is not known):
        trained = kind or (f'a model of {", ".join(names)}' if names else 'a plain network')
        raise ValueError(
            f'resume=True continues a training of {type(model).__name__}, and {file} is of {trained}. Set '
            'resume=False and load_from to start a new training from its weights.'
        )
