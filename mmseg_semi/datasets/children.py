"""Shared by datasets with named children: build them, check their files, seed their samples."""

import contextlib
import copy
import logging
import os.path as osp
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from .backends import backend_of_loader, is_local, look_for, say_unasked
from .files import copies_of, real_paths
from .labels import VOID
from .names import alike, endings, files_below, is_hidden, is_image, left_out
from .paths import check_data_paths
from .transforms.checks import with_file_checks
from .unlabeled import UnlabeledDataset
from .walk import Leaf, leaves, map_leaf_configs, map_leaves, sample_infos

NAMES = dict(labeled='labeled', unlabeled='unlabeled', pseudo_labeled='pseudo-labeled')
_SAMPLE = 1  # separates these random draws from the sampler's, which may use the same seed


def check_seed(owner, seed) -> None:
    """Raise ValueError unless ``seed`` is an integer >= 0."""
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'{type(owner).__name__} seed={seed!r} must be an integer of at least 0.')


@contextlib.contextmanager
def sample_randomness(seed: int, *key: int) -> Iterator[None]:
    """Seed the CPU generators of Python, numpy and torch from seed and key; restore their states at the end."""
    sequence = np.random.SeedSequence((seed, _SAMPLE, *key))
    words = [int(word) for word in sequence.generate_state(3)]
    # The transforms of mmcv and mmseg use numpy's global random state.
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        random.seed(words[0])
        np.random.seed(words[1])
        # torch.manual_seed would also reseed the GPUs.
        torch.default_generator.manual_seed(words[2])
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def build_child(
    kind: str, child, may_be_empty: bool = False, name: str | None = None, key: str | None = None
):
    """Build and initialize a child; raise ValueError or FileNotFoundError if it has no images.

    Error messages use ``name`` for the child and ``key`` for its config key. Both default to those of ``kind``.
    """
    name, key = name or NAMES[kind], key or f'train_dataloader.dataset.{kind}'
    if isinstance(child, Mapping):
        check_data_paths(child)
        try:
            child = DATASETS.build(copy.deepcopy(child))
            if hasattr(child, 'full_init'):
                child.full_init()
        except ValueError as error:
            # For an empty list of samples, mmengine raises this error of numpy.
            if 'need at least one array' not in str(error):
                raise
            raise ValueError(_empty(name, key, child)) from None
    elif hasattr(child, 'full_init'):
        child.full_init()
    if not hasattr(child, '__len__') or not hasattr(child, 'get_data_info'):
        raise ValueError(
            f'{key}={child!r} is not a dataset. Give the config of the {name} dataset.'
        )
    if len(child) == 0 and not may_be_empty:
        raise ValueError(_empty(name, key, child))
    return child


def _empty(name: str, key: str, child) -> str:
    get = child.get if isinstance(child, Mapping) else lambda key, _: getattr(child, key, None)
    settings = {
        key: get(key, None) for key in ('data_root', 'ann_file', 'data_prefix', 'img_suffix')
    }
    said = ', '.join(f'{key}={value!r}' for key, value in settings.items() if value)
    prefix = (get('data_prefix', None) or {}).get('img_path') or get('img_dir', None) or ''
    folder = osp.join(get('data_root', None) or '', prefix)
    there = [path for path in files_below(folder) if is_image(path) and not is_hidden(path)]
    if there and not get('ann_file', None):
        said += f'; {folder} has {endings(there)}'
    return (
        f'The {name} dataset has no image ({said or "no path is set"}). Correct these settings of '
        f'{key}, or put at least one image there.'
    )


def num_counted(dataset) -> int | None:
    """Return the number of images in ``counted`` of a train dataset; None if it has no ``counted``."""
    config = getattr(dataset, 'counted', None)
    if config is None:
        return None
    key = 'train_dataloader.dataset.counted'
    config = map_leaf_configs(config, lambda leaf: {**leaf.dataset, 'pipeline': []}, key)
    return len(build_child('unlabeled', config, key=key))


def image_paths(child) -> list[str]:
    """Return the image paths of a dataset in its order; samples without a path get a made-up name."""
    infos = (child.get_data_info(index) for index in range(len(child)))
    return [info.get('img_path') or f'sample {index}' for index, info in enumerate(infos)]


def pipeline_transforms(dataset) -> list:
    """Return the built transforms of an unwrapped dataset's pipeline; none without a pipeline."""
    return list(getattr(getattr(dataset, 'pipeline', None), 'transforms', ()))


def void_value(dataset) -> int:
    """Return the void value of a dataset's masks: its ``ignore_index``, or mmseg's default 255."""
    value = getattr(dataset, 'ignore_index', None)
    return VOID if value is None else value


def file_loaders(dataset) -> Iterator[LoadImageFromFile | LoadAnnotations]:
    """Yield mmcv's file loaders in the pipelines of a dataset and of the datasets it wraps."""
    for leaf in leaves(dataset):
        for transform in pipeline_transforms(leaf.dataset):
            if isinstance(transform, (LoadImageFromFile, LoadAnnotations)):
                yield transform


def read_by(images: Mapping, pipeline: Sequence) -> Mapping:
    """Return a copy of the config of unlabeled images with the file backend of another dataset's pipeline.

    Args:
        images: Config of a dataset whose own pipeline is not used.
        pipeline: Transforms, as configs or built. The first ``LoadImageFromFile`` with a backend is used.
    """
    loader = next(filter(_reads_behind, pipeline), None)
    if loader is None:
        return images
    return map_leaf_configs(images, lambda leaf: {**leaf.dataset, 'pipeline': [loader]})


def _reads_behind(transform) -> bool:
    """Whether a transform, built or as a config, loads images and names a backend."""
    of = transform if isinstance(transform, Mapping) else vars(transform)
    kind = of.get('type', type(transform))
    name = kind if isinstance(kind, str) else kind.__name__
    named = of.get('backend_args') or of.get('file_client_args')
    return name.rpartition('.')[2] == 'LoadImageFromFile' and bool(named)


def check_files_exist(dataset, name: str, key: str) -> None:
    """Look for every file that a dataset's loaders would open.

    Args:
        dataset: Any mmseg dataset or wrapper. Wrapped datasets are checked with their own loaders. Behind a
            file backend at most 200 files are looked for, or none if the backend cannot tell; the log says so.
        name: Name of the dataset for the message.
        key: Config key of the dataset.

    Raises:
        FileNotFoundError: An image or a mask does not exist.
        ValueError: See :func:`check_names`.
    """
    taken = taken_files(dataset)
    for leaf in leaves(dataset, key):
        _check_files_of(leaf, name, taken)


def taken_files(dataset) -> set[str]:
    """Return the paths of all images and masks of a dataset, also of those that it wraps."""
    fields = 'img_path', 'seg_map_path'
    infos = sample_infos(dataset)
    return {osp.normpath(info[field]) for info in infos for field in fields if info.get(field)}


def _check_files_of(leaf: Leaf, name: str, taken: set[str]) -> None:
    infos = sample_infos(leaf.dataset)
    for kind, field, what in (
        (LoadImageFromFile, 'img_path', 'images'),
        (LoadAnnotations, 'seg_map_path', 'masks'),
    ):
        loader = next((t for t in pipeline_transforms(leaf.dataset) if isinstance(t, kind)), None)
        paths = [info[field] for info in infos if field in info]
        if loader is None or not paths:
            continue
        backend = backend_of_loader(loader, paths[0])
        local = is_local(backend)
        if local and kind is LoadImageFromFile:
            check_names(leaf, name, taken)
        missing, asked = look_for(paths, backend)
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {asked} {what} of the {name} dataset do not exist, the first is '
                f'{missing[0]}{alike(missing[0]) if local else ""}. Correct the list (one id per line), or '
                f'data_prefix and suffixes of {leaf.key}.'
            )
        say_unasked(asked, len(paths), f'{what} of the {name} dataset', backend)


def check_names(leaf: Leaf, name: str, taken: set[str]) -> None:
    """Check the file names in the local folder that a dataset searches for images; log which are ignored.

    MMSegmentation's datasets take images from hidden folders, ignore hidden files, and compare endings
    case-sensitively: ``img_suffix='.jpg'`` ignores ``x.JPG``.

    Args:
        leaf: The dataset and its key.
        name: Name of the dataset for the message.
        taken: Paths from :func:`taken_files` of the set that the dataset is part of. Other datasets of a
            ``ConcatDataset`` may take the rest of a folder.

    Raises:
        ValueError: There are images in a hidden folder, such as ``.ipynb_checkpoints``.
    """
    folder = searched_folder(leaf.dataset)
    if folder is None or isinstance(leaf.dataset, UnlabeledDataset):  # checks itself
        return
    infos = sample_infos(leaf.dataset)
    check_hidden(leaf, folder, infos, name)
    for sentence in left_out(folder):
        print_log(sentence, logger='current')
    for sentence in not_taken(leaf.dataset, folder, taken):
        print_log(f'{leaf.key or name}: {sentence}', logger='current', level=logging.WARNING)


def searched_folder(dataset) -> str | None:
    """Return the local folder that a dataset takes all images of; None if it has a list or takes a part."""
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path') or ''
    whole = getattr(dataset, '_indices', None) is None and not getattr(dataset, 'ann_file', '')
    return folder if whole and osp.isdir(folder) else None


def check_hidden(leaf: Leaf, folder: str, infos: Sequence[dict], name: str) -> None:
    """Raise ValueError if images of a dataset are in a hidden folder below the folder it searched."""
    taken = [osp.relpath(info['img_path'], folder) for info in infos if 'img_path' in info]
    hidden = [path for path in taken if not path.startswith(osp.pardir) and is_hidden(path)]
    if hidden:
        raise ValueError(
            f'{len(hidden)} images of the {name} dataset lie in hidden folders, the first is '
            f'{osp.join(folder, hidden[0])}. Remove these folders, or set ann_file of {leaf.key} to a list '
            'of the images.'
        )


def not_taken(dataset, folder: str, taken: set[str]) -> list[str]:
    """Report the image files of a searched folder that are not among the taken ones."""
    others = [
        path
        for path in files_below(folder)
        if not is_hidden(path)
        and is_image(path)
        and osp.normpath(osp.join(folder, path)) not in taken
    ]
    if not others or not hasattr(dataset, 'img_suffix'):
        return []
    return [
        f'{len(others)} image files of {folder} are not among its images ({endings(others)}). '
        + not_taken_remedy(dataset)
    ]


def not_taken_remedy(dataset) -> str:
    """Return how a dataset takes images whose ending is not its ``img_suffix``."""
    suffix = getattr(dataset, 'img_suffix', None)
    if not isinstance(suffix, str):
        return f'If they are images to use, add their ending to img_suffix, which is {suffix!r}.'
    return (
        f'Its img_suffix is {suffix!r} (case-sensitive). If they are images to use, convert all images with '
        'tools/dataset_converters/folders.py --rgb, or list one dataset for each ending in a ConcatDataset.'
    )


def check_what(owner, check_files: bool | str) -> None:
    """Raise ValueError unless ``check_files`` is True, False or 'complete'."""
    if check_files not in (True, False, 'complete'):
        raise ValueError(
            f"{type(owner).__name__} check_files={check_files!r} must be True, 'complete' (images of any "
            'color mode pass) or False.'
        )


def with_checks(kind: str, child, num_classes: int | None, modes: bool = True):
    """Return a shallow copy of the child with file checks in its pipelines; the child does not change."""

    def checked(leaf: Leaf):
        dataset = copy.copy(leaf.dataset)
        unchecked = 'all files (no pipeline to add the checks to)'
        if hasattr(getattr(dataset, 'pipeline', None), 'transforms'):
            transforms, unchecked = with_file_checks(
                pipeline_transforms(dataset),
                num_classes,
                kind != 'unlabeled',
                modes,
                void_value(dataset),
            )
            dataset.pipeline = Compose(transforms)
        if unchecked:
            print_log(
                f'File checks of the {NAMES[kind]} {type(dataset).__name__} leave out {unchecked}.',
                logger='current',
            )
        return dataset

    return map_leaves(child, checked)


def warn_of_shared_images(labeled: Sequence[str], others: Sequence[str], consequence: str) -> None:
    """Log the paths that are in both lists, after resolving links, or that have a copy of the same name there.

    ``consequence`` ends the sentence.

    This is not an error, see :func:`mmseg_semi.datasets.split_check.is_partition`.
    """
    known = set(real_paths(labeled))
    both = [path for path, real in zip(others, real_paths(others), strict=True) if real in known]
    both = both or copies_of(others, known)
    if both:
        print_log(
            f'{len(both)} image(s) are in the labeled and in the unlabeled set, the first is {both[0]}; '
            f'{consequence}',
            logger='current',
            level=logging.WARNING,
        )
