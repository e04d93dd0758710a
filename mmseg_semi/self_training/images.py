"""The images to predict: ids, batches, and loading.

The batches only depend on the list of images, and each batch is processed by one rank. Therefore the results do
not depend on the number of ranks or on where an earlier run was interrupted.
"""

from __future__ import annotations

import hashlib
import os.path as osp
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info
from mmseg.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from mmseg_semi.datasets.children import build_child, read_by
from mmseg_semi.datasets.files import open_image
from mmseg_semi.datasets.pseudo_labeled import image_ids
from mmseg_semi.datasets.transforms.checks import CheckImageFile, CheckLabels, with_file_checks
from mmseg_semi.datasets.walk import leaves, stage_leaves

BATCH_PIXELS = 2048 * 1024
"""Pixels per forward pass (one Cityscapes image), unless a single image is larger."""
_SAMPLED = 4096
"""Bytes of each file that the fingerprint of the images depends on."""


def prediction_pipeline(cfg: Config) -> list[dict]:
    """Return the test pipeline of a config without transforms that load or check annotations.

    It still resizes images to the size for which the network was trained.

    Args:
        cfg (Config): Config with ``test_dataloader``.

    Returns:
        list[dict]: Configs of transforms, shared with ``cfg``.

    Raises:
        ValueError: The config has no test pipeline, its test sets prepare images in different ways, or the
            pipeline crops images.
    """
    first, ways = None, []
    for leaf in stage_leaves(cfg, 'test'):
        pipeline = leaf.dataset.get('pipeline') or []
        way = [transform for transform in pipeline if not _needs_annotations(transform)]
        if way and way not in ways:
            first = first or leaf.key
            ways.append(way)
            other = leaf.key
    if not ways:
        raise ValueError(
            'The config has no test_dataloader.dataset.pipeline, which prepares images for the '
            'network. Add one.'
        )
    if len(ways) > 1:
        raise ValueError(
            f'{first}.pipeline and {other}.pipeline prepare images in two ways, so the pipeline of unlabeled '
            'images is ambiguous. Give all test sets one pipeline, or set one dataset in test_dataloader.'
        )
    crops = [transform['type'] for transform in ways[0] if _crops(transform)]
    if crops:
        raise ValueError(
            f'{first}.pipeline has {crops[0]}, so predictions would cover a part of each image. Use a config '
            'whose test pipeline does not crop.'
        )
    return ways[0]


def _crops(transform: dict) -> bool:
    kind = transform['type']
    return 'Crop' in (kind if isinstance(kind, str) else kind.__name__)


def _needs_annotations(transform: dict) -> bool:
    kind = transform['type']
    kind = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if kind is None:
        return False  # building it raises the error
    by_name = kind.__name__.startswith('Load') and 'Annotation' in kind.__name__
    return by_name or issubclass(kind, (LoadAnnotations, CheckLabels))


class ImagePool:
    """The images of a dataset, prepared by the config's test pipeline.

    Args:
        cfg: Config with ``test_dataloader``. If ``train_dataloader.dataset.check_files`` is 'complete' or
            False, images need not be 8-bit RGB.
        images: Config of a dataset of images; its own pipeline is not used.
        subset: Ids of the images to take, in any order; None takes all.

    Attributes:
        ids (list[str]): Ids of the images, in the order of the dataset.

    Raises:
        FileNotFoundError: The folder, the list or a listed image does not exist.
        ValueError: There is no image, two images have one id, or an id of ``subset`` has no image.
    """

    def __init__(self, cfg: Config, images: dict, subset: Iterable[str] | None = None) -> None:
        self._dataset = build_child('unlabeled', read_by(images, prediction_pipeline(cfg)))
        ids = image_ids(self._dataset)
        self._found = [leaf.dataset for leaf in leaves(self._dataset)]
        places = [(inner, index) for inner in self._found for index in range(len(inner))]
        if subset is not None:
            wanted = set(subset)
            unknown = sorted(wanted.difference(ids))
            if unknown:
                raise ValueError(
                    f'{len(unknown)} of {len(wanted)} ids of the subset are not images, the first is '
                    f'{unknown[0]!r}. Give a list of the same images.'
                )
            kept = [i for i, name in enumerate(ids) if name in wanted]
            ids, places = [ids[i] for i in kept], [places[i] for i in kept]
        self.ids, self._places = ids, places
        drawn = 'shapes' in self._dataset.get_data_info(0)
        self._transforms = _build(cfg, drawn)

    def __len__(self) -> int:
        return len(self.ids)

    def info(self, position: int) -> dict:
        """Return the info of an image before loading."""
        dataset, index = self._places[position]
        return dataset.get_data_info(index)

    def true_mask_name(self, position: int, suffix: str) -> str:
        """Return the file of an image's true mask by mmseg's rule: ``suffix`` replaces its ``img_suffix``."""
        path, own = (
            self.info(position)['img_path'],
            getattr(self._places[position][0], 'img_suffix', ()),
        )
        for ending in (own,) if isinstance(own, str) else own:
            if path.endswith(ending):  # an id lacks everything after the last dot
                return self.ids[position].removesuffix(ending.rpartition('.')[0]) + suffix
        return self.ids[position] + suffix

    @property
    def dataset(self) -> Dataset:
        """The dataset of all images, including those not in ``subset``."""
        return self._dataset

    @property
    def displays(self) -> bool:
        """Whether images are loaded as viewers display them; False if the loader ignores EXIF."""
        return all(getattr(transform, 'displays', True) for transform in self._transforms)

    def check_files(self) -> None:
        """Read the header and the end of every image file, which takes about 40 µs each.

        Raises:
            FileNotFoundError: An image does not exist.
            ValueError: A file is truncated, is not an image, or (if required) is not 8-bit RGB.
        """
        for check in self._transforms:
            if isinstance(check, CheckImageFile):
                for position in range(len(self)):
                    check.transform(self.info(position))

    def check_outside(self, folder: str) -> None:
        """Raise ValueError if the next run would find results in ``folder`` as images."""
        for dataset in self._found:
            root = (getattr(dataset, 'data_prefix', None) or {}).get('img_path')
            searched = root and osp.isdir(root) and not getattr(dataset, 'ann_file', '')
            if searched and Path(osp.realpath(folder)).is_relative_to(osp.realpath(root)):
                raise ValueError(
                    f'{folder} is inside the folder of images {root}, so that results would count as images. '
                    'Give a folder outside of it.'
                )

    def fingerprint(self) -> str:
        """Return a fingerprint of the images, independent of their location.

        It depends on the ids, and on the size and some bytes of each local file, since reading whole files
        would take long.
        """
        digest = hashlib.sha256()
        for position, name in enumerate(self.ids):
            info = self.info(position)
            known = info.get('shapes')
            if known is None and osp.isfile(info['img_path']):
                known = _sample(info['img_path'])
            digest.update(f'{name} {known}\n'.encode())
        first = f' from {self.ids[0]} on' if self.ids else ''
        return f'{len(self)}{first}, SHA-256 {digest.hexdigest()}'

    def plan(self, batch_size: int) -> list[list[int]]:
        """Split the list into batches of equal image size, at most ``batch_size`` images and `BATCH_PIXELS`.

        Sizes are those of the files. Every rank reads the headers of its share and receives the whole plan.

        Returns:
            list[list[int]]: Positions in `ids`.
        """
        rank, world = get_dist_info()
        own = {i: self._size(i) for i in range(rank, len(self), world)}
        sizes = {i: size for part in all_gather_object(own) for i, size in part.items()}
        groups: dict[tuple[int, int] | None, list[int]] = {}
        for position in range(len(self)):
            groups.setdefault(sizes[position], []).append(position)
        return [
            group[start : start + step]
            for size, group in groups.items()
            for step in [images_per_batch(size, batch_size)]
            for start in range(0, len(group), step)
        ]

    def load(
        self, batches: Sequence[list[int]], num_workers: int
    ) -> Iterator[tuple[list[int], list[dict]]]:
        """Load the batches; a batch is split if its loaded images differ in size.

        Yields:
            tuple: Positions, and the samples from ``PackSegInputs``.

        Raises:
            FileNotFoundError: An image no longer exists.
            ValueError: An image cannot be read.
        """
        if not batches:
            return
        loader = DataLoader(
            _Loading(self, Compose(self._transforms)),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=_single_threaded,
            pin_memory=get_device().startswith('cuda'),
        )
        for batch, samples in zip(batches, loader, strict=True):
            for sample in samples:
                if isinstance(sample, Exception):
                    raise sample
            yield from _of_one_size(batch, samples)

    def _size(self, position: int) -> tuple[int, int] | None:
        """Return (height, width) before any transform; None if that requires reading the whole file."""
        info = self.info(position)
        if 'shapes' in info:
            return tuple(info['shapes']['image_size'])
        if not osp.isfile(info['img_path']):
            return None
        try:
            with open_image(info['img_path']) as image:
                width, height = image.size
        except OSError:
            return None  # loading raises the error
        return height, width


class _Loading(Dataset):
    """Loads an image, or returns the error, since an error raised in a worker has its traceback as text."""

    def __init__(self, pool: ImagePool, pipeline: Compose) -> None:
        self._pool, self._pipeline = pool, pipeline

    def __getitem__(self, position: int) -> dict | Exception:
        info = self._pool.info(position)
        try:
            return self._pipeline(info)
        except AssertionError:  # from mmcv, if the decoder returns None
            return ValueError(
                f'{info.get("img_path")} cannot be read as an image. Replace it, or take it out of the list.'
            )
        except (OSError, ValueError) as error:
            return error


def images_per_batch(
    size: tuple[int, int] | None, batch_size: int, limit: int = BATCH_PIXELS
) -> int:
    """Return the batch size for images of (height, width): as many as fit into ``limit`` pixels, at least 1."""
    if size is None:
        return batch_size
    return max(1, min(batch_size, limit // (size[0] * size[1])))


def _of_one_size(batch: list[int], samples: list[dict]) -> Iterator[tuple[list[int], list[dict]]]:
    groups: dict[tuple, list[int]] = {}
    for i, sample in enumerate(samples):
        size = tuple(sample['inputs'].shape[-2:]), tuple(sample['data_samples'].ori_shape[:2])
        groups.setdefault(size, []).append(i)
    for size, group in groups.items():
        step = min(images_per_batch(part, len(batch)) for part in size)
        for start in range(0, len(group), step):
            part = group[start : start + step]
            yield [batch[i] for i in part], [samples[i] for i in part]


def _sample(path: str) -> str:
    """Return the size of a file and a checksum of the bytes in its middle, after any header."""
    size = osp.getsize(path)
    with open(path, 'rb') as file:
        file.seek(max(0, size - _SAMPLED) // 2)
        return f'{size} {zlib.crc32(file.read(_SAMPLED)):08x}'


def _build(cfg: Config, drawn: bool) -> list:
    configs = prediction_pipeline(cfg)
    if not drawn:  # a network trained on synthetic images can label files
        configs = [
            dict(type='LoadImageFromFile') if c['type'] == 'LoadShapes' else c for c in configs
        ]
    transforms, _ = with_file_checks([TRANSFORMS.build(c) for c in configs], None, labeled=False)
    if cfg.get('train_dataloader', {}).get('dataset', {}).get('check_files', True) is not True:
        for transform in transforms:
            if isinstance(transform, CheckImageFile):
                transform.rgb = False
    return transforms


def _single_threaded(_: int) -> None:
    """Use one thread per worker, since the workers share the cores."""
    cv2.setNumThreads(0)
