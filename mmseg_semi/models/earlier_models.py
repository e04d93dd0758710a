"""Copies of a network from earlier in its training, as an ensemble for pseudo-labels (PrevMatch)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .gradients import without_gradients
from .matching import below


class EarlierModels(nn.Module):
    """Weights of a network at several times of its training, the oldest first.

    They are neither parameters nor buffers, so the optimizer, DistributedDataParallel and ``model.to(...)``
    ignore them. Checkpoints store them as ``NUMBER.KEY``, so that a resumed training continues with them.
    Weights of auxiliary heads are left out, since they do not predict.

    A step never waits for the device. With ``'host'``, the weights of a sampled model are copied from pinned
    memory to a CUDA device asynchronously.

    Args:
        capacity (int): Maximum number of copies. A further copy replaces the oldest.
        place (str): ``'host'``, or ``'device'`` for copies in the device's memory.
    """

    def __init__(self, capacity: int, place: str = 'host') -> None:
        super().__init__()
        self.capacity, self.place = capacity, place
        self.models: list[dict[str, Tensor]] = []
        self._register_state_dict_hook(_write_models)

    @torch.no_grad()
    def keep(self, network: nn.Module) -> None:
        """Copy the weights and buffers of a network. This waits for the device once."""
        weights = {key: self._copy(value) for key, value in predicting(network).items()}
        self.models = [*self.models, weights][-self.capacity :]

    def draw(self, most: int, random_number: bool = True) -> list[tuple[int, float]]:
        """Sample models without replacement, and weights from a flat Dirichlet distribution (PrevMatch's code).

        The random numbers come from torch's generator on the host, which differs between ranks.

        Args:
            most (int): K, the largest number of models, limited to the available ones.
            random_number (bool): Sample the number of models uniformly from 1 to K; else use K.

        Returns:
            list[tuple[int, float]]: Indices into :attr:`models` and weights with sum 1.
        """
        host = torch.device('cpu')
        number = int(torch.randint(1, most + 1, (), device=host)) if random_number else most
        chosen = torch.randperm(len(self.models), device=host)[:number].tolist()
        # Exponential variables divided by their sum are uniform on the simplex.
        weights = torch.empty(len(chosen), dtype=torch.float64, device=host).exponential_()
        return list(zip(chosen, (weights / weights.sum()).tolist(), strict=True))

    @without_gradients()
    def logits(self, network: nn.Module, images: Tensor, drawn: list[tuple[int, float]]) -> Tensor:
        """Return the weighted sum of the logits of sampled models.

        Args:
            network (nn.Module): The network that was copied, in eval mode. Its weights do not change.
            images (Tensor): (N, 3, H, W).
            drawn (list[tuple[int, float]]): Result of :meth:`draw`.

        Returns:
            Tensor: float32 (N, C, h, w), or float64.
        """
        parts = (
            weight * functional_call(network, self._on(place, images.device), (images,))
            for place, weight in drawn
        )
        return sum(part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts)

    def _on(self, place: int, device: torch.device) -> dict[str, Tensor]:
        weights = {
            key: value.to(device, non_blocking=True) for key, value in self.models[place].items()
        }
        if self.place == 'device':  # a loaded checkpoint may be on the host
            self.models[place] = weights
        return weights

    def _copy(self, value: Tensor) -> Tensor:
        if self.place == 'device':
            return value.detach().clone()
        value = value.detach().to('cpu', copy=True)
        return value.pin_memory() if torch.cuda.is_available() else value

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        saved = dict(saved_models(state_dict, prefix))
        if len(saved) > self.capacity:
            raise ValueError(
                f'The checkpoint has {len(saved)} earlier models, but semi_train_cfg.num_models='
                f'{self.capacity}. Set num_models to {len(saved)}, as in the training that saved it.'
            )
        self.models = [
            {key: self._copy(value) for key, value in saved[number].items()}
            for number in sorted(saved)
        ]


def predicting(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights and buffers of a network without its auxiliary heads."""
    values = network.state_dict()
    return {key: value for key, value in values.items() if not key.startswith('auxiliary_head.')}


def saved_models(
    state_dict: dict[str, Tensor], prefix: str
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Return the models of a checkpoint. Their keys start with ``prefix`` and a number."""
    keys = below(state_dict, prefix)
    for number in sorted({int(key.partition('.')[0]) for key in keys}):
        yield number, below(keys, f'{number}.')


def _write_models(module: EarlierModels, state_dict: dict, prefix: str, *_) -> None:
    """Hook of ``state_dict`` that adds the models. MMEngine saves parameters, buffers and results of hooks."""
    for number, weights in enumerate(module.models):
        state_dict.update({f'{prefix}{number}.{key}': value for key, value in weights.items()})
