"""Check masks: some before training, and those of evaluations while they are loaded."""

from __future__ import annotations

from ...datasets.children import void_value
from ...datasets.transforms.checks import CheckLabels
from ...datasets.void_check import annotation_loader, check_some_masks
from ...datasets.walk import leaves
from ...self_training.output import on_first_rank
from .sets import evaluated_sets


def check_masks(runner) -> None:
    """Read at most 200 labeled masks and 200 masks of each validation set. All processes raise the same error.

    Masks with 0 and 255 would only train the background.

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


def check_evaluated_masks(loop, stage: str) -> None:
    """Let the datasets of a loop check the size and the values of each mask, as in training.

    MMSegmentation's metric counts a value beyond the classes as a wrong pixel, and does not name the file of a
    mask of another size. Only masks that MMSegmentation's own ``LoadAnnotations`` reads are checked.

    Args:
        loop: The built loop, or None.
        stage (str): 'val' or 'test'.
    """
    for key, dataset in evaluated_sets(loop, stage).items():
        for leaf in leaves(dataset, key):
            loader = annotation_loader(leaf)
            transforms = leaf.dataset.pipeline.transforms if loader is not None else []
            if loader is None or any(isinstance(t, CheckLabels) for t in transforms):
                continue
            num_classes = len(leaf.dataset.metainfo['classes'])
            check = CheckLabels(num_classes, void_value(leaf.dataset))
            transforms.insert(transforms.index(loader) + 1, check)
