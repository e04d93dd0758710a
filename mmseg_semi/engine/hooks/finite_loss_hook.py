"""A NaN or infinite loss stops the run before it reaches a checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch import Tensor

from ._common import save_due


class _Pending(NamedTuple):
    iteration: int
    names: list[str]
    finite: Tensor
    copied: torch.cuda.Event | None
    images: list[str]


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raise when a loss term is not finite, naming the iteration, the term and the images.

    The flags are copied to the host without blocking and read one iteration later, so that the step does
    not wait for the device; where a checkpoint is due they are read at once, so that no spoilt weights are
    saved and the last good checkpoint stands.

    Args:
        max_images (int): How many image names the message lists.

    Raises:
        FloatingPointError: A loss is NaN or infinite.
    """

    # Before the teacher follows the student and before anything is saved.
    priority = 'ABOVE_NORMAL'

    def __init__(self, max_images: int = 8) -> None:
        self.max_images = max_images
        self._pending: _Pending | None = None

    def before_train(self, runner) -> None:
        self._pending = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._check(runner)
        losses = {key: value for key, value in (outputs or {}).items() if 'loss' in key}
        if not losses:
            return
        finite = torch.stack([torch.isfinite(value.detach()).all() for value in losses.values()])
        copied = None
        if finite.is_cuda:
            host = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True)
            finite = host.copy_(finite, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending = _Pending(
            runner.iter + 1, list(losses), finite, copied, _image_names(data_batch)
        )
        if save_due(runner):
            self._check(runner)

    def after_train_epoch(self, runner) -> None:
        self._check(runner)

    def before_val(self, runner) -> None:
        self._check(runner)

    def _check(self, runner) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        if pending.finite.all():
            return
        pairs = zip(pending.names, pending.finite.tolist(), strict=True)
        # The sum is not finite either: name the terms that made it so.
        terms = [name for name, fine in pairs if not fine and name != 'loss'] or ['loss']
        more = len(pending.images) - self.max_images
        images = ', '.join(pending.images[: self.max_images]) + (
            f' and {more} more' if more > 0 else ''
        )
        last = runner.message_hub.runtime_info.get('last_ckpt')
        raise FloatingPointError(
            f'loss term {", ".join(terms)} is NaN or infinite in iteration {pending.iteration} with the '
            f'images {images}: lower the learning rate or check these images, then resume from '
            f'{last or "the start, since no checkpoint was saved yet"}.'
        )


def _image_names(data_batch) -> list[str]:
    samples = (data_batch or {}).get('data_samples', [])
    if isinstance(samples, dict):
        samples = [sample for branch in samples.values() for sample in branch]
    # A dict keeps the order and drops the second view of the same image.
    return list(dict.fromkeys(sample.metainfo.get('img_path', '?') for sample in samples))
