"""Passes over all labelled images before training, each image as it is, shared over the ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ...datasets import LabeledUnlabeledDataset, unaugmented


def labeled_images(runner, owner, pipeline: list | None = None) -> Dataset:
    """The labelled images of a training without resize, crop and flip.

    Args:
        runner: Whose ``train_dataloader`` is read.
        owner: The hook that asks, for the message.
        pipeline (list, optional): Transforms that load and pack an image. Default: those of the labelled
            pipeline that load, check and pack.

    Raises:
        ValueError: The training set is not labelled and unlabelled, or the pipeline does not load and pack.
    """
    dataset = runner.train_dataloader.dataset
    if not isinstance(dataset, LabeledUnlabeledDataset):
        raise ValueError(
            f'{type(owner).__name__} found a {type(dataset).__name__}: it needs a LabeledUnlabeledDataset, '
            'whose labelled images it reads.'
        )
    return unaugmented(dataset.labeled, pipeline)


def own_share(
    runner, dataset: Dataset, num_workers: int | None = None, collate_fn=pseudo_collate
) -> DataLoader:
    """A loader of this rank's share of the images, one by one, that draws no random number of the training."""
    workers = runner.train_dataloader.num_workers if num_workers is None else num_workers
    return DataLoader(
        Subset(dataset, range(get_rank(), len(dataset), get_world_size())),
        num_workers=workers,
        collate_fn=collate_fn,
        # Its own, or the loader would draw from the training's random numbers.
        generator=torch.Generator(),
    )


def image_and_label(model, batch: dict) -> tuple[Tensor, Tensor]:
    """A normalised image (1, 3, H, W) of such a loader and its label (1, H, W), void where the image is padded.

    The preprocessor pads images as for a test, to whole patches if ``test_cfg`` says so, and no labels.
    """
    data = model.data_preprocessor(batch, False)
    image, label = data['inputs'], data['data_samples'][0].gt_sem_seg.data
    right, bottom = (image.shape[side] - label.shape[side] for side in (-1, -2))
    return image, F.pad(label, (0, right, 0, bottom), value=255)
