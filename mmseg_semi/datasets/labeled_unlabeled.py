"""The labeled and unlabeled images of a semi-supervised training as named children of one dataset."""

import contextlib
from collections.abc import Mapping

from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from .children import (
    build_child,
    check_files_exist,
    check_seed,
    check_what,
    image_paths,
    sample_randomness,
    warn_of_shared_images,
    with_checks,
)
from .partition import fill_lists
from .unlabeled import UnlabeledDataset

_KINDS = ('labeled', 'unlabeled')


@DATASETS.register_module()
class LabeledUnlabeledDataset(Dataset):
    """Labeled images followed by unlabeled images, each with its own pipeline and random state.

    The children are named, so a config can change one of them without repeating the other. (Inherited configs
    replace a list as a whole.) For children of any class, a labeled sample has the branch ``labeled``; an
    unlabeled sample has the branches of its ``MultiBranch``, or ``weak`` without one.

    ``LabeledUnlabeledSampler`` requests ``dataset[index, position]``. This runs the pipeline with the random
    states of Python, numpy and torch (CPU) seeded from ``(seed, kind, position)`` and then restores them. So a
    sample does not depend on the worker, the rank or the number of resumes. ``dataset[index]`` uses the current
    random states. Transforms with their own generator (some of Albumentations') are not seeded.

    Args:
        labeled: Any mmseg dataset, config or object, whose pipeline ends in ``PackSegInputs``.
        unlabeled: Usually an ``UnlabeledDataset``, config or object, whose pipeline has ``AddValidMask`` and
            ends in ``MultiBranch`` or ``PackUnlabeledInputs``.
        seed: Seed of the samples' randomness, at least 0.
        check_files: Whether to check image and mask files: at start-up that they exist, while loading that they
            are complete 8-bit RGB images with masks of the same size and known classes
            (``transforms/checks.py``). 'complete' accepts images that mmcv converts to 8-bit RGB, such as gray
            images. The children do not change.
        partition: Folder of the lists, such as 'classic/183'. It replaces ``{partition}`` in ``ann_file`` of
            the children.

    Raises:
        FileNotFoundError: A list, folder, image or mask does not exist.
        ValueError: A child has no images, a setting is out of range, a list contains ``{partition}`` but
            ``partition`` is not set, or ``partition`` is set but no list contains it.
    """

    def __init__(
        self,
        labeled,
        unlabeled,
        seed: int = 0,
        check_files: bool | str = True,
        partition: str | None = None,
    ) -> None:
        check_seed(self, seed)
        check_what(self, check_files)
        self.seed = seed
        self.partition = partition
        children = fill_lists(dict(labeled=labeled, unlabeled=unlabeled), partition)
        labeled, unlabeled = children['labeled'], children['unlabeled']
        self.labeled = build_child('labeled', labeled)
        self.unlabeled = build_child('unlabeled', unlabeled)
        self.num_labeled, self.num_unlabeled = len(self.labeled), len(self.unlabeled)
        if check_files:
            check_files_exist(self.labeled, 'labeled', 'train_dataloader.dataset.labeled')
            if not isinstance(self.unlabeled, UnlabeledDataset):  # checks itself
                check_files_exist(self.unlabeled, 'unlabeled', 'train_dataloader.dataset.unlabeled')
            classes = self.metainfo.get('classes')
            num_classes = len(classes) if classes else None
            modes = check_files != 'complete'
            self.labeled = with_checks('labeled', self.labeled, num_classes, modes)
            self.unlabeled = with_checks('unlabeled', self.unlabeled, None, modes)
        warn_of_shared_images(
            self.labeled_paths(),
            self.unlabeled_paths(),
            'they are trained on with and without their labels.',
        )

    @property
    def metainfo(self) -> dict:
        """Meta information of the labeled child, such as classes and palette."""
        return self.labeled.metainfo

    def labeled_paths(self) -> list[str]:
        """Return the image paths of the labeled child, in its order."""
        return image_paths(self.labeled)

    def unlabeled_paths(self) -> list[str]:
        """Return the image paths of the unlabeled child, in its order."""
        return image_paths(self.unlabeled)

    def get_data_info(self, index: int) -> dict:
        """Return the info of sample ``index`` before loading."""
        kind, child_index = self._locate(index)
        return getattr(self, kind).get_data_info(child_index)

    def __len__(self) -> int:
        return self.num_labeled + self.num_unlabeled

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        """Load a sample.

        Args:
            index: ``(index, position)`` or an index; labeled samples come first.

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
        return sample_randomness(self.seed, _KINDS.index(kind), position)


def _branched(kind: str, sample: dict) -> dict:
    """Return the packed sample by branch; ValueError if the pipeline packs something else."""
    if not isinstance(sample, Mapping) or 'inputs' not in sample or 'data_samples' not in sample:
        end = 'PackSegInputs' if kind == 'labeled' else 'MultiBranch or PackUnlabeledInputs'
        raise ValueError(
            f'The pipeline of train_dataloader.dataset.{kind} does not pack its results. End it in {end}.'
        )
    if not isinstance(sample['inputs'], Mapping):
        branch = 'labeled' if kind == 'labeled' else 'weak'
        sample = dict(
            inputs={branch: sample['inputs']}, data_samples={branch: sample['data_samples']}
        )
    for branch, packed in sample['data_samples'].items():
        if branch.startswith('labeled') != (kind == 'labeled'):
            raise ValueError(
                f'The pipeline of train_dataloader.dataset.{kind} makes a branch {branch!r}: names of labeled '
                "branches begin with 'labeled', those of unlabeled ones do not."
            )
        wanted, other = (
            ('gt_sem_seg', 'valid_mask') if kind == 'labeled' else ('valid_mask', 'gt_sem_seg')
        )
        if wanted not in packed or other in packed:
            remedy = (
                'Load annotations and end it in PackSegInputs'
                if kind == 'labeled'
                else 'Add AddValidMask after the image is loaded and pack with PackUnlabeledInputs'
            )
            raise ValueError(
                f'The pipeline of train_dataloader.dataset.{kind} gives branch {branch!r} '
                f'{"no " + wanted if wanted not in packed else "a " + other}. {remedy}.'
            )
    return sample
