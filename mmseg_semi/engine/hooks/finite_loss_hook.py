"""Stop the run at a NaN or infinite loss before a checkpoint is saved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch import Tensor, nn

from ._common import save_due, unwrap


class _Pending(NamedTuple):
    iteration: int
    names: list[str]
    finite: Tensor
    copied: torch.cuda.Event | None
    images: list[str]


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raise an error with the iteration, the term and the images if a loss term is not finite.

    The flags are copied to the host without blocking and read one iteration later, so that the step does not
    wait for the device. Before a checkpoint they are read immediately, and the weights are checked, too, since
    a finite loss may have infinite gradients. All ranks then share the result, since the averaged gradients of
    all contain the NaN of one rank. The hook thus prevents checkpoints with NaN weights.

    Args:
        max_images (int): Maximum number of image names in the message.

    Raises:
        FloatingPointError: A loss is NaN or infinite, or, before a checkpoint, a weight.
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
            self._check_before_save(runner)

    def after_train_epoch(self, runner) -> None:
        self._check_before_save(runner)

    def before_val(self, runner) -> None:
        # The best checkpoint is saved after the validation.
        self._check_before_save(runner)

    def _check(self, runner) -> None:
        pending, self._pending = self._pending, None
        found = None if pending is None else _loss_terms(pending)
        if found is not None:
            raise FloatingPointError(self._sentence(runner, pending, found))

    def _check_before_save(self, runner) -> None:
        pending, self._pending = self._pending, None
        sentence = None
        if pending is not None:
            found = _loss_terms(pending) or _weight(unwrap(runner.model))
            sentence = None if found is None else self._sentence(runner, pending, found)
        sentences = [sentence for sentence in all_gather_object(sentence) if sentence is not None]
        if sentences:
            # Only the rank with the NaN loss knows the images. The others only see NaN weights.
            raise FloatingPointError(min(sentences, key=lambda text: not text.startswith('loss')))

    def _sentence(self, runner, pending: _Pending, found: str) -> str:
        more = len(pending.images) - self.max_images
        images = ', '.join(pending.images[: self.max_images]) + (
            f' and {more} more' if more > 0 else ''
        )
        last = runner.message_hub.runtime_info.get('last_ckpt')
        return (
            f'{found} is NaN or infinite in iteration {pending.iteration} with the images {images}. Lower the '
            'learning rate or check these images, then resume from '
            f'{last or "the start, since no checkpoint was saved yet"}.'
        )


def _loss_terms(pending: _Pending) -> str | None:
    """Return the loss terms that are not finite."""
    if pending.copied is not None:
        pending.copied.synchronize()
    if pending.finite.all():
        return None
    pairs = zip(pending.names, pending.finite.tolist(), strict=True)
    # The total loss is not finite, either. Report the terms that cause it.
    terms = [name for name, fine in pairs if not fine and name != 'loss'] or ['loss']
    return f'loss term {", ".join(terms)}'


def _weight(model: nn.Module) -> str | None:
    """Return the first weight that is not finite."""
    # Buffers are not checked, since constant masks of a network may be infinite.
    names, weights = zip(*model.named_parameters(), strict=True)
    finite = torch.stack([torch.isfinite(weight).all() for weight in weights]).tolist()
    return next(
        (f'weight {name}' for name, fine in zip(names, finite, strict=True) if not fine), None
    )


def _image_names(data_batch) -> list[str]:
    samples = (data_batch or {}).get('data_samples', [])
    if isinstance(samples, dict):
        samples = [sample for branch in samples.values() for sample in branch]
    # A dict keeps the order and removes duplicates of the second view.
    return list(dict.fromkeys(sample.metainfo.get('img_path', '?') for sample in samples))
