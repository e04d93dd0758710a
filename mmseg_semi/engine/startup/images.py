"""Check before training that loaders read whole images and that masks match their orientation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmseg.datasets.transforms import RandomRotFlip

from ...datasets.children import pipeline_transforms
from ...datasets.data_check import first_of
from ...datasets.files import image_size, open_image
from ...datasets.orientation import SECTION, Pair
from ...datasets.transforms.checks import OTHER_CHANNELS, CheckImageFile, reads_local_files
from ...datasets.walk import Leaf, leaves, sample_infos, transforms_within
from ...self_training.output import on_first_rank
from ..hooks._common import unwrap

MOST = 2000
"""Number of image-mask pairs per set whose headers are read, evenly spaced. Loading checks every pair."""
EIGHT_BITS = ('PhotoMetricDistortion', 'CLAHE', 'AdjustGamma', 'RandomGrayscale')
"""Transforms of mmseg and mmcv that silently convert images to 8 bits."""
THREE_CHANNELS = ('PhotoMetricDistortion', 'RGB2Gray', 'RandomGrayscale')
"""Transforms that need RGB images."""


def check_images(runner, validation: Mapping) -> None:
    """Load the first image of each set, and compare orientations of images and masks by their headers.

    Args:
        runner: Runner of a training.
        validation: Key in the config = validation set.

    Raises:
        ValueError: A loader drops bands or bits of a file, the preprocessor has another number of channels, a
            transform does not support the image or spoils masks, or the orientation of a mask is ambiguous.
    """
    mean = getattr(unwrap(runner.model).data_preprocessor, 'mean', None)
    channels = None if mean is None or len(mean) == 1 else len(mean)
    found = leaves(runner.train_dataloader.dataset)
    found += [leaf for key, dataset in validation.items() for leaf in leaves(dataset, key)]
    for leaf in found:
        on_first_rank(_check_set, leaf, channels)


def _check_set(leaf: Leaf, channels: int | None) -> None:
    transforms = pipeline_transforms(leaf.dataset)
    if leaf.kind != 'unlabeled':
        rotations = (t for t in transforms_within(transforms) if isinstance(t, RandomRotFlip))
        if any(rotation.rotate_prob for rotation in rotations):
            raise ValueError(
                f'{leaf.key}.pipeline has RandomRotFlip, which interpolates masks when it rotates, so their '
                'values become those of other classes. Set its rotate_prob=0, and add '
                "dict(type='RandomRotate', prob=0.5, degree=20, seg_pad_val=255)."
            )
    loader = first_of(transforms, LoadImageFromFile)
    infos = sample_infos(leaf.dataset) if loader is not None and reads_local_files(loader) else []
    infos = [info for info in infos if '://' not in info.get('img_path', '://')]
    if not infos:
        return
    masks = first_of(transforms, LoadAnnotations)
    if masks is not None:
        pairs = [info for info in infos if '://' not in info.get('seg_map_path', '://')]
        for info in pairs[:: max(1, -(-len(pairs) // MOST))]:
            _check_pair(info, leaf.key, loader, masks)
    path = infos[0]['img_path']
    check = first_of(transforms, CheckImageFile)
    if check is not None:  # its message is more helpful than that of a loader
        check.transform(dict(img_path=path))
    _check_channels(
        loader.transform(dict(img_path=path))['img'], path, leaf.key, transforms, channels
    )


def _check_pair(info: Mapping, key: str, loader, masks) -> None:
    image, mask = info['img_path'], info['seg_map_path']
    size, mask_size = image_size(image), _size(mask)
    if size is None or mask_size is None:
        return  # loading raises the error
    pair = Pair.of_files(image, mask, size, mask_size, True)
    if pair is None:
        return
    if not hasattr(loader, 'displays') or not hasattr(masks, 'drawn_on'):
        raise ValueError(
            f'{image} and {mask} have EXIF orientations {pair.orientation} and {pair.mask_orientation}, but '
            f'{key}.pipeline loads them by {type(loader).__module__} and {type(masks).__module__}. Write '
            f"type='LoadImageFromFile' and type='LoadAnnotations', by name ({SECTION})."
        )
    pair.view(info.get('drawn_on', masks.drawn_on))


def _size(path: str) -> tuple[int, int] | None:
    """Return the (height, width) of a decoded mask."""
    try:
        with open_image(path) as image:
            return image.height, image.width
    except OSError:
        return None


def _check_channels(image, path: str, key: str, transforms, channels: int | None) -> None:
    own = 1 if image.ndim == 2 else image.shape[2]
    names = [type(transform).__name__ for transform in transforms_within(transforms)]
    wrong = [name for name in EIGHT_BITS if name in names and image.dtype != np.uint8]
    wrong += [name for name in THREE_CHANNELS if name in names and own != 3]
    if wrong:
        raise ValueError(
            f'{key}.pipeline has {wrong[0]}, which needs 8-bit RGB images, but {path} is loaded with {own} '
            f'channel(s) of {image.dtype}. Remove {wrong[0]} ({OTHER_CHANNELS}).'
        )
    if channels is not None and own != channels:
        raise ValueError(
            f'{path} has {own} channel(s) as loaded, but data_preprocessor.mean and std have {channels} '
            'values. Give one per channel, in the order of the channels, and set in_channels of the backbone.'
        )
