"""Do all datasets of a run, and the checkpoint that is loaded, mean the same by a class index?"""

from __future__ import annotations

from collections.abc import Mapping

from ...datasets.meanings import (
    READINGS,
    compare_all,
    differences,
    meaning_of_checkpoint,
    meanings_of,
    meanings_of_config,
)
from .sets import evaluated_sets


def check_meanings(runner, same_masks: bool = True) -> None:
    """Compare labeled images, pseudo-labels, validation and test sets: classes, how masks are read, palettes.

    The test set is compared by its config, since it may not be there while training. A palette that differs is
    a warning: it changes pictures and no index.

    Args:
        runner: of a training.
        same_masks: False lets ``reduce_zero_label`` and ``label_map`` differ.

    Raises:
        ValueError: two sets differ.
    """
    found = meanings_of(runner.train_dataloader.dataset, 'train_dataloader.dataset')
    for key, dataset in evaluated_sets(runner.val_loop, 'val').items():
        found += meanings_of(dataset, key)
    found += meanings_of_config(runner.cfg, 'test')
    _judge(runner, compare_all(found), same_masks)


def check_meaning_of_checkpoint(
    runner, checkpoint: Mapping, stage: str, same_masks: bool = True
) -> None:
    """Compare the sets of a stage with what the network of a loaded checkpoint has learned.

    Args:
        runner: that has loaded it.
        checkpoint: as it was loaded.
        stage: 'train', 'val' or 'test'. Where a training begins with the weights of another one, a
            difference is a warning: the classifier learns again.
        same_masks: as of :func:`check_meanings`.

    Raises:
        ValueError: the set differs.
    """
    saved = meaning_of_checkpoint(checkpoint, str(runner._load_from))
    if saved is None:
        return
    if stage == 'train':
        sets = {'train_dataloader.dataset': runner.train_dataloader.dataset}
    else:
        sets = evaluated_sets(getattr(runner, f'{stage}_loop'), stage)
    found = [meaning for key, dataset in sets.items() for meaning in meanings_of(dataset, key)]
    apart = [d for meaning in found for d in differences(saved, meaning)]
    if stage == 'train' and not runner._resume:
        for difference in apart[:1]:
            runner.logger.warning(
                f'The weights were learned for other classes: {difference.sentence}'
            )
        return
    _judge(runner, apart, same_masks)


def _judge(runner, apart: list, same_masks: bool) -> None:
    for difference in apart:
        if difference.of == 'palette' or (difference.of in READINGS and not same_masks):
            runner.logger.warning(difference.sentence)
        else:
            raise ValueError(difference.sentence)
