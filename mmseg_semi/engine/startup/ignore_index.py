"""Check that heads, padding, masks and metrics use the same label for void."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmcv.transforms import Pad
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from ...datasets.labels import VOID
from ...datasets.transforms import CheckLabels
from ...datasets.transforms.formatting import FILLED
from ...datasets.walk import Leaf, nodes, transforms_within
from ..hooks._common import unwrap
from .sets import evaluated_sets

#: Attributes of transforms for the fill value of label maps.
_FILLS = ('seg_pad_val', 'ignore_index')


def check_ignore_index(runner) -> None:
    """Check that every part of a training uses the ``ignore_index`` of the decode head for void.

    Raises:
        ValueError: A part uses another label. The message has its key, its value and the remedy.
    """
    place, value = _of_decode_head(unwrap(runner.model))
    if place is None:
        return
    for key, found in _in_training(runner):
        _compare(key, found, place, value)
    for key, found in _in_unlabeled_pipelines(runner):
        if found != FILLED:
            raise ValueError(
                f'{key}={found} treats filled pixels of unlabeled images as real ones. Set it to {FILLED}, '
                'which marks them for any ignore_index.'
            )
    if runner.val_loop is not None:
        check_evaluation(runner, runner.val_loop, 'val')


def check_evaluation(runner, loop, stage: str) -> None:
    """Same as :func:`check_ignore_index` for metrics and datasets of a loop; ``stage`` is 'val' or 'test'."""
    place, value = _of_decode_head(unwrap(runner.model))
    if place is None:
        return
    for metric in loop.evaluator.metrics:
        if hasattr(metric, 'ignore_index'):
            key = f'{stage}_evaluator.ignore_index of {type(metric).__name__}'
            _compare(key, metric.ignore_index, place, value)
    for key, dataset in evaluated_sets(loop, stage).items():
        for part, found in _in_datasets(dataset, key):
            _compare(part, found, place, value)


def _compare(key: str, found: int, place: str, value: int) -> None:
    if found == value:
        return
    if key.endswith('reduce_zero_label'):
        raise ValueError(
            f'{key}=True maps label 0 to {VOID}, but {place}={value}. Set {place}={VOID}, or '
            f'reduce_zero_label=False.'
        )
    raise ValueError(
        f'{key} is {found}, but {place}={value}. Void must have one label. Set both to the one that the masks '
        'have.'
    )


def _of_decode_head(model: nn.Module) -> tuple[str | None, int]:
    """Return key and value of the first decode head; (None, 255) without a head of MMSegmentation."""
    for name, module in model.named_modules():
        if isinstance(module, BaseDecodeHead):
            return f'{name}.ignore_index', module.ignore_index
    return None, VOID


def _in_training(runner) -> Iterator[tuple[str, int]]:
    model = unwrap(runner.model)
    for name, head in model.named_modules():
        if not isinstance(head, BaseDecodeHead):
            continue
        yield f'{name}.ignore_index', head.ignore_index
        losses = head.loss_decode
        for loss in losses if isinstance(losses, nn.ModuleList) else [losses]:
            own = getattr(loss, 'ignore_index', None)
            if own is not None:
                yield f'{name}.loss_decode.ignore_index of {type(loss).__name__}', own
    fill = getattr(model.data_preprocessor, 'seg_pad_val', None)
    if fill is not None:
        yield 'data_preprocessor.seg_pad_val', fill
    yield from _in_datasets(runner.train_dataloader.dataset, 'train_dataloader.dataset')


def _in_datasets(dataset: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield the void labels of labeled datasets and of transforms that fill label maps."""
    for node in nodes(dataset, key):
        if node.kind == 'unlabeled':
            continue
        own = getattr(node.dataset, 'ignore_index', None)
        if own is not None:
            yield f'{node.key}.ignore_index', own
        if getattr(node.dataset, 'reduce_zero_label', False):
            yield f'{node.key}.reduce_zero_label', VOID
        yield from _fills(node)


def _in_unlabeled_pipelines(runner) -> Iterator[tuple[str, int]]:
    for node in nodes(runner.train_dataloader.dataset):
        if node.kind == 'unlabeled':
            yield from ((key, fill) for key, fill in _fills(node) if 'ignore_index' not in key)


def _fills(node: Leaf) -> Iterator[tuple[str, int]]:
    pipeline = getattr(node.dataset, 'pipeline', None)
    for transform in transforms_within(pipeline):
        key = f'{node.key}.pipeline: {type(transform).__name__}'
        if isinstance(transform, Pad):
            yield f'{key}.pad_val.seg', transform.pad_val.get('seg', VOID)
        # CheckLabels gets ignore_index from the dataset. RandomCrop without cat_max_ratio does not read labels.
        unused = isinstance(transform, CheckLabels) or getattr(transform, 'cat_max_ratio', 0) == 1
        for name in _FILLS:
            value = getattr(transform, name, None)
            if value is not None and not (unused and name == 'ignore_index'):
                yield f'{key}.{name}', value
