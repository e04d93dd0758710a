"""The two halves of a semi-supervised training set as named children of one dataset."""

import contextlib
import copy
import logging
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from .files import missing_files, real_paths
from .paths import check_data_paths
from .transforms.checks import reads_local_files, with_file_checks
from .unlabeled import UnlabeledDataset

_SAMPLE = 1  # keeps these draws apart from the sampler's, which may start from the same seed
_KINDS = ('labeled', 'unlabeled')
_NAMES = dict(labeled='labelled', unlabeled='unlabelled')


@DATASETS.register_module()
class LabeledUnlabeledDataset(Dataset):
    """Labelled images first, then unlabelled ones, each with a pipeline and randomness of its own.

    The children are named, so that a config can change one of them without repeating the other (a
    list would be replaced as a whole, or silently kept). Whatever their classes are,
    a labelled sample comes out as branch ``labeled``, an unlabelled one as the branches of its
    ``MultiBranch``, or as ``weak`` without one.

    ``dataset[index, position]``, which is how ``LabeledUnlabeledSampler`` asks, runs the pipeline with
    Python's, numpy's and torch's (CPU) random states seeded from ``(seed, kind, position)`` and puts the
    states back afterwards. So a sample does not depend on the worker, the rank or the number of resumes that
    it took to get there. ``dataset[index]`` uses the random states as they are. Transforms that keep
    a generator of their own (some of Albumentations') are out of reach.

    Args:
        labeled: any mmseg dataset, config or object, whose pipeline ends in ``PackSegInputs``.
        unlabeled: usually an ``UnlabeledDataset``, config or object, whose pipeline has ``AddValidMask`` and
            ends in ``MultiBranch`` or ``PackUnlabeledInputs``.
        seed: of the samples' randomness, at least 0.
        check_files: whether image and mask files are checked: at start-up that they exist, while
            loading that they are complete 8-bit RGB images with masks of their size and known
            classes (``transforms/checks.py``). The children themselves are not changed.

    Raises:
        FileNotFoundError: a list, folder, image or mask that does not exist.
        ValueError: a child without images, or a setting out of range.
    """

    def __init__(self, labeled, unlabeled, seed: int = 0, check_files: bool = True) -> None:
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(
                f'LabeledUnlabeledDataset seed={seed!r} must be an integer of at least 0.'
            )
        self.seed = seed
        self.labeled = _build('labeled', labeled)
        self.unlabeled = _build('unlabeled', unlabeled)
        self.num_labeled, self.num_unlabeled = len(self.labeled), len(self.unlabeled)
        if check_files:
            check_files_exist(self.labeled, 'labelled', 'train_dataloader.dataset.labeled')
            if not isinstance(self.unlabeled, UnlabeledDataset):  # which has looked already
                check_files_exist(
                    self.unlabeled, 'unlabelled', 'train_dataloader.dataset.unlabeled'
                )
            classes = self.metainfo.get('classes')
            num_classes = len(classes) if classes else None
            self.labeled = _checked('labeled', self.labeled, num_classes)
            self.unlabeled = _checked('unlabeled', self.unlabeled, None)
        self._warn_of_overlap()

    @property
    def metainfo(self) -> dict:
        """Meta information of the labelled child: classes, palette and so on."""
        return self.labeled.metainfo

    def labeled_paths(self) -> list[str]:
        """Image paths of the labelled child, in its order."""
        return _paths(self.labeled)

    def unlabeled_paths(self) -> list[str]:
        """Image paths of the unlabelled child, in its order."""
        return _paths(self.unlabeled)

    def get_data_info(self, index: int) -> dict:
        """What the child knows of sample ``index`` before it is loaded."""
        kind, child_index = self._locate(index)
        return getattr(self, kind).get_data_info(child_index)

    def __len__(self) -> int:
        return self.num_labeled + self.num_unlabeled

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        """Load a sample.

        Args:
            index: ``(index, position)`` or an index; labelled samples come first.

        Returns:
            ``{'inputs': {branch: (C, H, W) uint8}, 'data_samples': {branch: SegDataSample}}``.
        """
        index, position = index if isinstance(index, tuple) else (index, None)
        kind, child_index = self._locate(index)
        with self._randomness(kind, position):
            sample = getattr(self, kind)[child_index]
        return _branched(kind, sample)

    def _locate(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is not in a dataset of {len(self)} samples')
        if index < self.num_labeled:
            return 'labeled', index
        return 'unlabeled', index - self.num_labeled

    def _randomness(self, kind: str, position: int | None):
        if position is None:
            return contextlib.nullcontext()
        return _seeded((self.seed, _SAMPLE, _KINDS.index(kind), position))

    def _warn_of_overlap(self) -> None:
        labeled = set(real_paths(self.labeled_paths()))
        paths = self.unlabeled_paths()
        both = [
            path for path, real in zip(paths, real_paths(paths), strict=True) if real in labeled
        ]
        if both:
            print_log(
                f'{len(both)} image(s) are in the labelled and in the unlabelled set, the first is {both[0]}; '
                'they are trained on with and without their labels.',
                logger='current',
                level=logging.WARNING,
            )


@contextlib.contextmanager
def _seeded(key: tuple[int, ...]) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generator from ``key``; restore their states at the end."""
    words = [int(word) for word in np.random.SeedSequence(key).generate_state(3)]
    # The transforms of mmcv and mmseg draw from numpy's global state, so that is what is seeded.
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        random.seed(words[0])
        np.random.seed(words[1])
        # Not torch.manual_seed: it would reseed the GPUs as well.
        torch.default_generator.manual_seed(words[2])
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _build(kind: str, child):
    """The initialised child; ValueError or FileNotFoundError in one sentence when it has no images."""
    if isinstance(child, Mapping):
        check_data_paths(child)
        try:
            child = DATASETS.build(copy.deepcopy(child))
            if hasattr(child, 'full_init'):
                child.full_init()
        except ValueError as error:
            # mmengine serialises an empty list of samples into numpy's complaint.
            if 'need at least one array' not in str(error):
                raise
            raise ValueError(_empty(kind, child)) from None
    elif hasattr(child, 'full_init'):
        child.full_init()
    if not hasattr(child, '__len__') or not hasattr(child, 'get_data_info'):
        raise ValueError(
            f'train_dataloader.dataset.{kind}={child!r} is not a dataset: give the config of the '
            f'{_NAMES[kind]} dataset.'
        )
    if len(child) == 0:
        raise ValueError(_empty(kind, child))
    return child


def _empty(kind: str, child) -> str:
    get = child.get if isinstance(child, Mapping) else lambda key, _: getattr(child, key, None)
    settings = {
        key: get(key, None) for key in ('data_root', 'ann_file', 'data_prefix', 'img_suffix')
    }
    said = ', '.join(f'{key}={value!r}' for key, value in settings.items() if value)
    return (
        f'The {_NAMES[kind]} dataset has no image ({said or "no path is set"}): correct these settings of '
        f'train_dataloader.dataset.{kind}, or put at least one image there.'
    )


def _paths(child) -> list[str]:
    infos = (child.get_data_info(index) for index in range(len(child)))
    return [info.get('img_path') or f'sample {index}' for index, info in enumerate(infos)]


def _loaders(child) -> Iterator[LoadImageFromFile | LoadAnnotations]:
    """mmcv's loaders of local files in the pipelines of a dataset and of what it wraps."""
    for inner in (*getattr(child, 'datasets', ()), getattr(child, 'dataset', None)):
        if inner is not None:
            yield from _loaders(inner)
    for transform in getattr(getattr(child, 'pipeline', None), 'transforms', ()):
        if isinstance(transform, (LoadImageFromFile, LoadAnnotations)) and reads_local_files(
            transform
        ):
            yield transform


def check_files_exist(dataset, name: str, key: str) -> None:
    """Look for every file that a dataset's loaders would open.

    Args:
        dataset: any mmseg dataset; files behind a file backend are not looked for.
        name: of the dataset, in the message.
        key: where the config sets it.

    Raises:
        FileNotFoundError: an image or a mask is not there.
    """
    loaders = list(_loaders(dataset))
    for loader, field, what in (
        (LoadImageFromFile, 'img_path', 'images'),
        (LoadAnnotations, 'seg_map_path', 'masks'),
    ):
        if not any(isinstance(transform, loader) for transform in loaders):
            continue
        infos = (dataset.get_data_info(index) for index in range(len(dataset)))
        paths = [info[field] for info in infos if field in info]
        missing = missing_files(paths)
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(paths)} {what} of the {name} dataset do not exist, the first is '
                f'{missing[0]}: correct the list (one id per line), or data_prefix and suffixes of {key}.'
            )


def _checked(kind: str, child, num_classes: int | None):
    """A shallow copy of the child whose pipelines have the file checks; the child stays as it is."""
    child = copy.copy(child)
    if hasattr(child, 'datasets'):
        child.datasets = [_checked(kind, inner, num_classes) for inner in child.datasets]
        return child
    if hasattr(child, 'dataset'):
        child.dataset = _checked(kind, child.dataset, num_classes)
        return child
    transforms = getattr(getattr(child, 'pipeline', None), 'transforms', None)
    unchecked = 'all files (it has no pipeline to put the checks in)'
    if transforms is not None:
        transforms, unchecked = with_file_checks(transforms, num_classes, labeled=kind == 'labeled')
        child.pipeline = Compose(transforms)
    if unchecked:
        print_log(
            f'File checks of the {_NAMES[kind]} {type(child).__name__} leave out {unchecked}.',
            logger='current',
        )
    return child


def _branched(kind: str, sample: dict) -> dict:
    """The packed sample by branch; ValueError when its pipeline packs something else."""
    if not isinstance(sample, Mapping) or 'inputs' not in sample or 'data_samples' not in sample:
        end = 'PackSegInputs' if kind == 'labeled' else 'MultiBranch or PackUnlabeledInputs'
        raise ValueError(
            f'The pipeline of train_dataloader.dataset.{kind} does not pack its results: end it in {end}.'
        )
    if not isinstance(sample['inputs'], Mapping):
        branch = 'labeled' if kind == 'labeled' else 'weak'
        sample = dict(
            inputs={branch: sample['inputs']}, data_samples={branch: sample['data_samples']}
        )
    for branch, packed in sample['data_samples'].items():
        if branch.startswith('labeled') != (kind == 'labeled'):
            raise ValueError(
                f'The pipeline of train_dataloader.dataset.{kind} makes a branch {branch!r}: names of labelled '
                "branches begin with 'labeled', those of unlabelled ones do not."
            )
        wanted, other = (
            ('gt_sem_seg', 'valid_mask') if kind == 'labeled' else ('valid_mask', 'gt_sem_seg')
        )
        if wanted not in packed or other in packed:
            remedy = (
                'load annotations and end it in PackSegInputs'
                if kind == 'labeled'
                else 'add AddValidMask after the image is loaded and pack with PackUnlabeledInputs'
            )
            raise ValueError(
                f'The pipeline of train_dataloader.dataset.{kind} gives branch {branch!r} '
                f'{"no " + wanted if wanted not in packed else "a " + other}: {remedy}.'
            )
    return sample
