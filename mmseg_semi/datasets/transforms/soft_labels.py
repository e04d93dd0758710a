"""Soft labels in a pipeline, which are transformed with their image.

Most transforms only apply to ``gt_seg_map``, and not all of them support maps with many channels. Therefore,
between ``AddSoftLabels`` and ``PackSoftLabels``, this map contains the index of each pixel instead of its
label. It is resized by nearest neighbor, cropped, flipped, rotated and padded with the image. At the end, mask
and soft labels are looked up by these indices. Pixels that a transform fills, such as padding or the box of
Cutout, have the void value and no target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs

from ..soft_labels import read_soft_label
from .loading import LoadAnnotations

#: Smallest pixel index; smaller values are filled in by transforms.
_FIRST = 256


class AddSoftLabels(BaseTransform):
    """Read the soft labels of an image whose mask is loaded, and number its pixels.

    Needs ``gt_seg_map`` (H, W) and ``soft_label``, a dict of ``path``, ``k`` and ``num_classes``. Adds
    ``soft_maps``, uint8 (H, W, 2 k), and ``hard_map``, the mask; ``gt_seg_map`` becomes int32 (H, W).

    Args:
        loader (LoadAnnotations): Loader of the mask. It also rotates the soft labels like the image.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not fit, see :func:`~mmseg_semi.datasets.soft_labels.read_soft_label`.
    """

    def __init__(self, loader: LoadAnnotations) -> None:
        self.loader = loader

    def transform(self, results: dict) -> dict:
        """Add the maps; the arrays in ``results`` do not change."""
        mask, wanted = results['gt_seg_map'], results['soft_label']
        maps = read_soft_label(wanted['path'], mask.shape[:2], wanted['k'], wanted['num_classes'])
        maps = self.loader.turned(results, np.ascontiguousarray(maps.transpose(1, 2, 0)))
        if maps.shape[:2] != mask.shape[:2]:
            raise ValueError(
                f'{wanted["path"]} has another size than its mask {results["seg_map_path"]}. Remove the '
                'folder and create the pseudo-labels again.'
            )
        numbers = np.arange(_FIRST, _FIRST + mask.size, dtype=np.int32).reshape(mask.shape)
        return {**results, 'gt_seg_map': numbers, 'hard_map': mask, 'soft_maps': maps}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


class PackSoftLabels(BaseTransform):
    """Look up mask and soft labels of the remaining pixels, and pack them.

    The sample has ``gt_sem_seg`` as usual, and ``gt_soft_seg``, ``PixelData`` whose ``data`` is uint8 (2 k, H,
    W). Pixels that are void in ``gt_sem_seg`` have no target.

    Args:
        packer (PackSegInputs): Transform of the pipeline that packs everything else.
    """

    def __init__(self, packer: PackSegInputs) -> None:
        self.packer = packer

    def transform(self, results: dict) -> dict:
        """Pack ``results``, which does not change."""
        kept = {k: v for k, v in results.items() if k not in ('soft_maps', 'hard_map')}
        numbers = results['gt_seg_map']
        real = numbers >= _FIRST
        pixel = np.where(real, numbers - _FIRST, 0)
        mask, maps = results['hard_map'], results['soft_maps']
        kept['gt_seg_map'] = np.where(real, mask.reshape(-1)[pixel], numbers).astype(mask.dtype)
        packed = self.packer.transform(kept)
        maps = maps.reshape(-1, maps.shape[-1])[pixel].transpose(2, 0, 1)
        soft = torch.from_numpy(np.ascontiguousarray(maps))
        packed['data_samples'].set_data(dict(gt_soft_seg=PixelData(data=soft)))
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.packer})'


def with_soft_labels(transforms: Sequence) -> list:
    """Insert the two transforms into a list of built ones: after the mask loader, and around the last one.

    Raises:
        ValueError: The list has no ``LoadAnnotations``, does not end in ``PackSegInputs``, or counts the labels
            of a crop.
    """
    key = 'train_dataloader.dataset.pseudo_labeled'
    place = next((i for i, t in enumerate(transforms) if isinstance(t, LoadAnnotations)), None)
    if place is None or not isinstance(transforms[-1], PackSegInputs):
        raise ValueError(
            f'{key}.soft=True needs a pipeline with LoadAnnotations that ends in PackSegInputs, and '
            f'{key}.pipeline has {", ".join(type(t).__name__ for t in transforms)}. Use these two, or set '
            'soft=False.'
        )
    for index, transform in enumerate(transforms):
        if getattr(transform, 'cat_max_ratio', 1) < 1:
            raise ValueError(
                f'{key}.pipeline[{index}].cat_max_ratio={transform.cat_max_ratio} counts hard labels, which '
                f'soft=True moves by number. Set cat_max_ratio=1.0, or {key}.soft=False.'
            )
    loader, packer = transforms[place], PackSoftLabels(transforms[-1])
    return [
        *transforms[: place + 1],
        AddSoftLabels(loader),
        *transforms[place + 1 : -1],
        packer,
    ]
