"""Check that the validation reports the metrics by which a run selects."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmseg.evaluation import IoUMetric
from torch import Tensor

from ..class_iou import ClassIoUMetric
from ..metric_names import IOU_METRICS, metric_names, wanted_metrics
from .lengths import parts_of

#: Images of the validation set whose sizes are compared.
_LOOKED_AT = 8


class _Monitor(NamedTuple):
    """A hook or scheduler that monitors a metric.

    Attributes:
        setting (str): Key of its setting in the config.
        name (str): The metric.
        rename (Callable): Sets another name of the metric.
        rule (str, optional): 'greater' or 'less', whichever is better.
    """

    setting: str
    name: str
    rename: Callable[[str], None]
    rule: str | None


def check_metrics(runner) -> None:
    """Resolve metrics without a network to those of the network that predicts, and reject unknown ones.

    Args:
        runner (Runner): Runner before its first iteration.

    Raises:
        ValueError: A metric is not reported, two metrics have the same name, or there is no validation.
    """
    monitors = list(_monitors(runner))
    if runner.val_loop is None:
        if monitors:
            raise ValueError(
                f'{monitors[0].setting}={monitors[0].name!r} needs a validation. Set val_dataloader, '
                f'val_evaluator and val_cfg, or remove {monitors[0].setting}.'
            )
        return
    loop = runner.val_loop
    _check_iou_metrics(loop.evaluator)
    own = metric_names(loop.evaluator)
    if own is None:
        if monitors:
            kinds = ', '.join(type(one).__name__ for one in loop.evaluator.metrics)
            runner.logger.info(
                f'{monitors[0].setting}={monitors[0].name!r} is not checked, since the names of {kinds} are '
                'not known before the first validation.'
            )
        return
    twice = [name for name in own if own.count(name) > 1]
    if twice:
        raise ValueError(
            f'Several metrics of val_evaluator report {twice[0]}. Give each another prefix, such as '
            "val_evaluator=[dict(type='IoUMetric', prefix='first', ...), ...]."
        )
    known = loop.reported_names() if hasattr(loop, 'reported_names') else own
    predicting = dict(zip(own, known, strict=False))
    for monitor in monitors:
        name = monitor.name
        if name == 'auto' and known:
            monitor.rename(known[0])
            runner.logger.info(f'{monitor.setting}={name!r} is {known[0]}.')
        elif name not in known and name in predicting:
            monitor.rename(predicting[name])
            runner.logger.info(
                f'{monitor.setting}={monitor.name!r} is {predicting[name]}, of the network that predicts.'
            )
        elif name not in known and name != 'auto':
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f', such as {close[0]!r}' if close else ''
            raise ValueError(
                f'{monitor.setting}={name!r} is not a metric of this run, whose validation reports '
                f'{", ".join(known) or "none"}. Set {monitor.setting} to one of them{hint}.'
            )
        if monitor.rule == 'less':
            runner.logger.warning(
                f"{monitor.setting}={monitor.name!r} has rule='less', but larger values of IoUMetric are "
                "better. Set rule='greater'."
            )


def _check_iou_metrics(evaluator) -> None:
    """Raise ValueError if ``iou_metrics`` has a name that ``IoUMetric`` would refuse after the validation."""
    for metric in evaluator.metrics:
        known = type(metric) in (IoUMetric, ClassIoUMetric)
        for name in wanted_metrics(metric) if known else ():
            if name not in IOU_METRICS:
                close = difflib.get_close_matches(name, IOU_METRICS, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f'val_evaluator iou_metrics={name!r} is not a metric of IoUMetric. Did you mean {close!r}? '
                    f'It has {", ".join(IOU_METRICS)}.'
                )


def _monitors(runner) -> Iterator[_Monitor]:
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best is not None:
            for index, name in enumerate(hook.key_indicators):
                setting = 'default_hooks.checkpoint.save_best'
                yield _Monitor(setting, name, _renaming_best(hook, index), hook.rules[index])
        elif isinstance(hook, EarlyStoppingHook):
            rename = _renaming(hook)
            yield _Monitor('EarlyStoppingHook.monitor', hook.monitor, rename, hook.rule)
    for key, part in parts_of(runner.param_schedulers):
        if getattr(part, 'need_val_args', False):
            yield _Monitor(f'{key}.monitor', part.monitor, _renaming(part), part.rule)


def _renaming(owner) -> Callable[[str], None]:
    return lambda name: setattr(owner, 'monitor', name)


def _renaming_best(hook: CheckpointHook, index: int) -> Callable[[str], None]:
    def rename(name: str) -> None:
        names = list(hook.key_indicators)
        names[index] = name
        hook._init_rule(list(hook.rules), names)

    return rename


def check_image_sizes(runner) -> None:
    """Reject validation batches with images of different sizes if the loop does not split them.

    Only the first images are checked.

    Args:
        runner (Runner): Runner before its first iteration.

    Raises:
        ValueError: The sizes of the images differ.
    """
    loop = runner.val_loop
    batch_size = getattr(getattr(loop, 'dataloader', None), 'batch_size', 1) or 1
    if batch_size == 1 or hasattr(loop, 'reported_names'):  # our loops
        return
    dataset = loop.dataloader.dataset
    samples = (dataset[index] for index in range(min(len(dataset), max(_LOOKED_AT, batch_size))))
    images = [sample['inputs'] for sample in samples]
    sizes = {tuple(one.shape[-2:]) for one in images if isinstance(one, Tensor)}
    if len(sizes) > 1:
        said = ' and '.join(f'{height}x{width}' for height, width in sorted(sizes)[:2])
        raise ValueError(
            f'val_dataloader.batch_size={batch_size}, but validation images differ in size, such as {said} '
            "(height x width). Set val_cfg.type='TeacherStudentValLoop', which splits such batches, or "
            'val_dataloader.batch_size=1.'
        )
