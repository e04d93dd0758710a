"""Match loaded checkpoints to the model, so that a network without loaded weights is never evaluated."""

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
    """Adapt a checkpoint that a Runner will load to the networks of its model.

    A plain model, or a method with other networks, loads the predicting network of a method's checkpoint. A
    training that starts from a checkpoint (``load_from``) loads the matching weights and logs the others in one
    line. A test or a resumed training needs the weights of all networks.

    Args:
        runner (Runner): Runner with its model.
        checkpoint (dict): Checkpoint, edited in place.

    Raises:
        ValueError: The checkpoint does not match the model, or a resumed one belongs to another model.
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
    """Raise ValueError for resuming from the optimizer, history and iteration of another method."""
    networks = model.networks if isinstance(model, SemiSegmentor) else ()
    kind = trained_method(checkpoint)[0]
    known = MODELS.get(kind) if kind and names else None
    if set(names) != set(networks) or (known is not None and type(model) is not known):
        trained = kind or (f'a model of {", ".join(names)}' if names else 'a plain network')
        raise ValueError(
            f'resume=True continues a training of {type(model).__name__}, but {file} is from {trained}. Set '
            'resume=False and load_from to start a new training from its weights.'
        )
