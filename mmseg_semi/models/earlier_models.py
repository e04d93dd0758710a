"""Copies of a network from earlier in its training, which label images together (PrevMatch)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .gradients import without_gradients
from .matching import below


class EarlierModels(nn.Module):
    """The weights of a network at several moments of its training, the oldest first.

    They are neither parameters nor buffers: no optimizer, no DistributedDataParallel and no ``model.to(...)``
    sees them. A checkpoint has them as ``NUMBER.KEY``, so that a resumed training continues with them. What
    only auxiliary heads need is left out, since they predict nothing.

    In a step nothing waits for the host. From ``'host'``, the weights of a drawn model are copied to the device
    while the device works; in memory that is pinned, which needs CUDA.

    Args:
        capacity (int): Most copies. One more takes the place of the oldest.
        place (str): ``'host'``, or ``'device'`` for copies in the device's memory.
    """

    def __init__(self, capacity: int, place: str = 'host') -> None:
        super().__init__()
        self.capacity, self.place = capacity, place
        self.models: list[dict[str, Tensor]] = []
        self._register_state_dict_hook(_write_models)

    @torch.no_grad()
    def keep(self, network: nn.Module) -> None:
        """Copy the weights and buffers of a network; this waits for the device, once."""
        weights = {key: self._copy(value) for key, value in predicting(network).items()}
        self.models = [*self.models, weights][-self.capacity :]

    def draw(self, most: int, random_number: bool = True) -> list[tuple[int, float]]:
        """Draw models without repetition, and weights from a flat Dirichlet distribution (PrevMatch's code).

        The draws come from torch's generator on the host, which each rank has for itself.

        Args:
            most (int): K, of which as many are drawn as there are.
            random_number (bool): Draw 1 to K models, each number as often as the others; else K.

        Returns:
            list[tuple[int, float]]: The models' places in :attr:`models`, and their weights, whose sum is 1.
        """
        host = torch.device('cpu')
        number = int(torch.randint(1, most + 1, (), device=host)) if random_number else most
        chosen = torch.randperm(len(self.models), device=host)[:number].tolist()
        # Exponential variables over their sum are uniform on the simplex.
        weights = torch.empty(len(chosen), dtype=torch.float64, device=host).exponential_()
        return list(zip(chosen, (weights / weights.sum()).tolist(), strict=True))

    @without_gradients()
    def logits(self, network: nn.Module, images: Tensor, drawn: list[tuple[int, float]]) -> Tensor:
        """Weighted sum of the drawn models' logits.

        Args:
            network (nn.Module): That was copied, in eval mode. It lends its structure; its weights stay.
            images (Tensor): (N, 3, H, W).
            drawn (list[tuple[int, float]]): As of :meth:`draw`.

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
        if self.place == 'device':  # a checkpoint may have been read to the host
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
                f'The checkpoint has {len(saved)} earlier models and semi_train_cfg.num_models='
                f'{self.capacity}. Set num_models as in the training that saved it.'
            )
        self.models = [
            {key: self._copy(value) for key, value in saved[number].items()}
            for number in sorted(saved)
        ]


def predicting(network: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a network without its auxiliary heads."""
    values = network.state_dict()
    return {key: value for key, value in values.items() if not key.startswith('auxiliary_head.')}


def saved_models(
    state_dict: dict[str, Tensor], prefix: str
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The models of a checkpoint, whose keys begin with ``prefix`` and a number."""
    keys = below(state_dict, prefix)
    for number in sorted({int(key.partition('.')[0]) for key in keys}):
        yield number, below(keys, f'{number}.')


def _write_models(module: EarlierModels, state_dict: dict, prefix: str, *_) -> None:
    """Hook of ``state_dict``: MMEngine saves parameters, buffers and what such hooks add."""
    for number, weights in enumerate(module.models):
        state_dict.update({f'{prefix}{number}.{key}': value for key, value in weights.items()})
