"""A look at some masks before training: 0/255 masks would train on the background alone."""

from __future__ import annotations

from ...datasets.void_check import check_some_masks
from ...datasets.walk import leaves
from ...self_training.output import on_first_rank
from .sets import evaluated_sets


def check_masks(runner) -> None:
    """Read at most 200 labeled masks and as many of each validation set; every process stops where one would.

    Raises:
        ValueError: a class has no pixel in them and the void value holds more than 1 %.
    """
    trained_on = [
        leaf for leaf in leaves(runner.train_dataloader.dataset) if leaf.kind in (None, 'labeled')
    ]
    validated = [
        leaves(dataset, key) for key, dataset in evaluated_sets(runner.val_loop, 'val').items()
    ]
    for sets in (trained_on, *validated):
        on_first_rank(check_some_masks, sets)
