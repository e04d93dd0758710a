"""Check some masks before training, since 0/255 masks would only train the background."""

from __future__ import annotations

from ...datasets.void_check import check_some_masks
from ...datasets.walk import leaves
from ...self_training.output import on_first_rank
from .sets import evaluated_sets


def check_masks(runner) -> None:
    """Read at most 200 labeled masks and 200 masks of each validation set. All processes raise the same error.

    Raises:
        ValueError: A class has no pixels in them, and more than 1 % of the pixels have the void value.
    """
    trained_on = [
        leaf for leaf in leaves(runner.train_dataloader.dataset) if leaf.kind in (None, 'labeled')
    ]
    validated = [
        leaves(dataset, key) for key, dataset in evaluated_sets(runner.val_loop, 'val').items()
    ]
    for sets in (trained_on, *validated):
        on_first_rank(check_some_masks, sets)
