"""Check that class indices have the same meaning in all datasets of a run and in a loaded checkpoint."""

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

    The test set is compared by its config, since its files may not exist in training. A different palette only
    causes a warning, because it changes images but no class index.

    Args:
        runner: Runner of a training.
        same_masks: False allows different ``reduce_zero_label`` and ``label_map``.

    Raises:
        ValueError: Two sets differ.
    """
    found = meanings_of(runner.train_dataloader.dataset, 'train_dataloader.dataset')
    for key, dataset in evaluated_sets(runner.val_loop, 'val').items():
        found += meanings_of(dataset, key)
    found += meanings_of_config(runner.cfg, 'test')
    _judge(runner, compare_all(found), same_masks)


def check_meaning_of_checkpoint(
    runner, checkpoint: Mapping, stage: str, same_masks: bool = True
) -> None:
    """Compare the datasets of a stage with the classes of a loaded checkpoint.

    Args:
        runner: Runner that has loaded it.
        checkpoint: The loaded checkpoint.
        stage: 'train', 'val' or 'test'. If a training starts from the weights of another one, a difference only
            causes a warning, since the classifier is trained again.
        same_masks: Same as in :func:`check_meanings`.

    Raises:
        ValueError: A dataset differs from the checkpoint.
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
                f'The loaded weights were trained for other classes: {difference.sentence}'
            )
        return
    _judge(runner, apart, same_masks)


def _judge(runner, apart: list, same_masks: bool) -> None:
    for difference in apart:
        if difference.of == 'palette' or (difference.of in READINGS and not same_masks):
            runner.logger.warning(difference.sentence)
        else:
            raise ValueError(difference.sentence)
