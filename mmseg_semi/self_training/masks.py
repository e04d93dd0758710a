"""Masks as palette PNG files: the class index of every pixel, with colors for viewers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image
from torch import Tensor

from mmseg_semi.datasets.backends import backend_of, open_stored_image
from mmseg_semi.datasets.labels import VOID
from mmseg_semi.datasets.pseudo_labeled import MASK_SUFFIX
from mmseg_semi.datasets.soft_labels import SOFT_SUFFIX, encode_soft_label
from mmseg_semi.datasets.walk import stage_leaves

from .output import write_bytes

Palette = Sequence[Sequence[int]]


def classes_and_palette(
    palette: Palette | None, dataset_meta: Mapping, cfg: Config, num_classes: int
) -> tuple[list[str], Palette]:
    """Return names and colors of the classes.

    Args:
        palette: RGB per class, 0..255. If None, the first that exists is used: the checkpoint's palette, that
            of the config's test dataset, PASCAL VOC's color map.
        dataset_meta: Meta information of the checkpoint.
        cfg: Config with ``test_dataloader``.
        num_classes: C.

    Raises:
        ValueError: ``palette`` has fewer colors than there are classes.
    """
    if palette is not None and len(palette) < num_classes:
        raise ValueError(
            f'palette has {len(palette)} colors for {num_classes} classes. Give one per class, or none.'
        )
    sources = [dataset_meta, *_dataset_metas(cfg)]

    def first(key):
        found = (source.get(key) for source in sources)
        return next((list(x) for x in found if x and len(x) >= num_classes), None)

    names = first('classes') or [f'class {c}' for c in range(num_classes)]
    palette = palette if palette is not None else first('palette') or voc_colors(num_classes)
    return names[:num_classes], [list(map(int, color)) for color in palette[:num_classes]]


def voc_colors(number: int) -> list[list[int]]:
    """PASCAL VOC's colors: bits 0, 3, 6 of the index are the highest of red, 1, 4, 7 of green, 2, 5 of blue."""
    return [
        [
            sum((c >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
            for channel in range(3)
        ]
        for c in range(number)
    ]


def encode_mask(mask: np.ndarray, palette: Palette) -> bytes:
    """Encode class indices, uint8 (H, W), as a palette PNG file."""
    colors = np.full((VOID + 1, 3), 255, dtype=np.uint8)
    colors[: len(palette)] = palette
    image = Image.fromarray(mask)
    image.putpalette(colors.tobytes())
    content = io.BytesIO()
    image.save(content, format='PNG')
    return content.getvalue()


def read_mask(path: str) -> np.ndarray:
    """Read the class indices of a mask file, uint8 (H, W)."""
    with open_stored_image(path, backend_of(path)) as image:
        return np.array(image)


class MaskWriter:
    """Writes the masks of one batch while the network processes the next one.

    Args:
        palette: RGB color per class.
        source: Source of the masks in errors.
        void: Whether a mask may have void pixels, 255.

    Attributes:
        pixels (np.ndarray): int64 (C,), number of written pixels of each class.
    """

    def __init__(self, palette: Palette, source: str, void: bool = False) -> None:
        self.pixels = np.zeros(len(palette), dtype=np.int64)
        self._palette, self._source, self._void = palette, source, void
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._last: Future | None = None

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self._wait()
        self._thread.shutdown(cancel_futures=True)

    def write(self, paths: Sequence[str], masks: Tensor, soft: Tensor | None = None) -> None:
        """Write masks (N, H, W) uint8 to these files; the device may still be computing them.

        With ``soft``, uint8 (N, 2 k, H, W) from `compress_probs`, each mask gets a file of soft labels beside
        it.

        Raises:
            OSError: An earlier batch cannot be written.
            ValueError: The network's output for an earlier batch is not finite.
        """
        self._wait()
        self._last = self._thread.submit(self._write, paths, masks, soft)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def _write(self, paths: Sequence[str], masks: Tensor, soft: Tensor | None) -> None:
        stored = [None] * len(paths) if soft is None else soft.cpu().numpy()
        for path, mask, one in zip(paths, masks.cpu().numpy(), stored, strict=True):
            self.count(mask, path)
            if one is not None:
                # Write soft labels first: an existing mask then means that the image is done.
                write_bytes(path.removesuffix(MASK_SUFFIX) + SOFT_SUFFIX, encode_soft_label(one))
            write_bytes(path, encode_mask(mask, self._palette))

    def count(self, mask: np.ndarray, path: str) -> None:
        """Add a mask to `pixels`.

        Raises:
            ValueError: The mask has a value that is not a class.
        """
        labels = mask[mask != VOID] if self._void else mask.ravel()
        counts = np.bincount(labels, minlength=len(self.pixels))
        if len(counts) > len(self.pixels):
            raise ValueError(
                f'{self._source} predicts values that are not finite for {path}. Use a checkpoint from before '
                'the training diverged.'
            )
        self.pixels += counts


def _dataset_metas(cfg: Config) -> list[Mapping]:
    """Return the class information of the config's test sets: the ``metainfo`` of each, then its type's."""
    metas = []
    for leaf in stage_leaves(cfg, 'test'):
        kind = leaf.dataset.get('of') or leaf.dataset.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        metas += [leaf.dataset.get('metainfo') or {}, getattr(kind, 'METAINFO', None) or {}]
    return metas
