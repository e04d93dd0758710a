"""Deterministic passes over all labeled images before training, distributed over the ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ...datasets import LabeledUnlabeledDataset, unaugmented
from ...models.batch import VOID, with_void


def labeled_images(runner, owner, pipeline: list | None = None) -> Dataset:
    """Return the labeled images of a training without resize, crop and flip.

    Args:
        runner: Runner with the ``train_dataloader``.
        owner: The calling hook, for the message.
        pipeline (list, optional): Transforms that load and pack an image. Default: the transforms of the
            labeled pipeline that load, check and pack.

    Raises:
        ValueError: The training set is not a LabeledUnlabeledDataset, or the pipeline does not load and pack.
    """
    dataset = runner.train_dataloader.dataset
    if not isinstance(dataset, LabeledUnlabeledDataset):
        raise ValueError(
            f'{type(owner).__name__} needs the labeled images of a LabeledUnlabeledDataset, got a '
            f'{type(dataset).__name__}. Set train_dataloader.dataset to a LabeledUnlabeledDataset.'
        )
    return unaugmented(dataset.labeled, pipeline)


def own_share(
    runner, dataset: Dataset, num_workers: int | None = None, collate_fn=pseudo_collate
) -> DataLoader:
    """Build a loader of this rank's part of the images, one by one, without global random numbers."""
    workers = runner.train_dataloader.num_workers if num_workers is None else num_workers
    return DataLoader(
        Subset(dataset, range(get_rank(), len(dataset), get_world_size())),
        num_workers=workers,
        collate_fn=collate_fn,
        # Its own generator, so that the loader does not change the random state of the training.
        generator=torch.Generator(),
    )


def own_batches(
    runner, dataset: Dataset, batch_size: int, num_workers: int | None = None
) -> DataLoader:
    """Build a loader of this rank's part of the images in batches.

    Each image is used once, and all ranks have the same number of batches, as SyncBN needs. Each batch has at
    least 2 images, for the statistics of batch normalization. If the last batch would be smaller, its images
    are distributed to the other batches.

    Args:
        runner: Runner whose ``train_dataloader`` has the default of ``num_workers``.
        dataset: Labeled images.
        batch_size: Images per batch.
        num_workers: Workers of the loader. It does not change the random state of the training.

    Raises:
        ValueError: A rank has fewer than 2 images.
    """
    rank, ranks = get_rank(), get_world_size()
    fewest = len(dataset) // ranks
    if fewest < 2:
        raise ValueError(
            f'{len(dataset)} labeled images over {ranks} process(es) leave one with {fewest}, but batch '
            "statistics need 2. Set semi_train_cfg.prototype_init='first_batch', or train with "
            f'{len(dataset) // 2 or "no"} process(es) at most.'
        )
    most = -(-len(dataset) // ranks)
    number = min(-(-most // batch_size), fewest // 2)
    own = range(rank, len(dataset), ranks)
    return DataLoader(
        dataset,
        batch_sampler=[own[i::number] for i in range(number)],
        num_workers=runner.train_dataloader.num_workers if num_workers is None else num_workers,
        collate_fn=pseudo_collate,
        generator=torch.Generator(),
    )


class CenterCrop(Dataset):
    """Center crops of images and labels, at most ``size`` = (height, width); None keeps the whole images."""

    def __init__(self, dataset: Dataset, size: tuple[int, int] | None) -> None:
        self.dataset = dataset
        self.size = size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        sample = self.dataset[index]
        image, labeled = sample['inputs'], sample['data_samples']
        if self.size is None:
            return sample
        top, left = (
            max(0, (side - most) // 2)
            for side, most in zip(image.shape[-2:], self.size, strict=True)
        )
        inside = (..., slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        label = PixelData(data=labeled.gt_sem_seg.data[inside])
        cropped = SegDataSample(gt_sem_seg=label, metainfo=labeled.metainfo)
        return {'inputs': image[inside], 'data_samples': cropped}


def training_batch(
    model, batch: dict, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return normalized images (B, 3, H, W) and labels (B, H, W) of a batch, padded as in training.

    Args:
        model: Model whose preprocessor pads each image as in training.
        batch: Batch of :func:`own_batches`.
        size: (height, width) to which smaller images are padded first, with the value of the preprocessor.

    Returns:
        tuple: The images and the labels. Labels are 255 in the padding.
    """
    images, labels = [], []
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        data = {'inputs': {'labeled': [image]}, 'data_samples': {'labeled': [sample]}}
        images.append(model.data_preprocessor(data, True)['inputs']['labeled'])
        label = with_void(sample.gt_sem_seg.data, model.ignore_index)
        labels.append(label.to(images[-1].device))
    height, width = (
        max(*sides, least)
        for sides, least in zip(
            zip(*(image.shape[-2:] for image in images), strict=True), size or (0, 0), strict=True
        )
    )

    def padded(maps: list[Tensor], value: float) -> Tensor:
        sizes = [(width - one.shape[-1], height - one.shape[-2]) for one in maps]
        return torch.cat(
            [F.pad(one, (0, w, 0, h), value=value) for one, (w, h) in zip(maps, sizes, strict=True)]
        )

    return padded(images, model.data_preprocessor.pad_val), padded(labels, VOID)


def image_and_label(model, batch: dict) -> tuple[Tensor, Tensor]:
    """Return a normalized image (1, 3, H, W) and its label (1, H, W), which is void in the padding.

    The preprocessor pads the image as in a test, to whole patches if ``test_cfg`` requires it. It does not pad
    labels.
    """
    data = model.data_preprocessor(batch, False)
    image, label = data['inputs'], data['data_samples'][0].gt_sem_seg.data
    right, bottom = (image.shape[side] - label.shape[side] for side in (-1, -2))
    label = with_void(label, model.ignore_index)
    return image, F.pad(label, (0, right, 0, bottom), value=VOID)
