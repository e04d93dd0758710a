"""Check a partition before training: errors, warnings and contents."""

from __future__ import annotations

import copy
import os
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmseg.registry import DATASETS

from .backends import backend_of_loader, look_for
from .children import check_files_exist, file_loaders, image_paths
from .data_check import survey_images, unmatched
from .files import copies_of, real_paths
from .fingerprints import identify
from .labels import ClassCount, survey_masks
from .paths import check_data_paths
from .report import Report
from .sequences import near_frames
from .unlabeled import UnlabeledDataset
from .void_check import masks_of
from .walk import Leaf, image_files, leaves, named_sets, sample_infos

TRAINED_ON = ('labeled', 'unlabeled')
FRAMES = 60
"""Maximum frame distance of neighbors: two seconds of ordinary video."""


def build_parts(configs: Mapping[str, Mapping], report: Report) -> dict:
    """Build the datasets of a partition; a dataset that cannot be built adds an error to the report.

    Args:
        configs: Dataset configs by name ('labeled', 'unlabeled', 'validation', 'test'); all are optional.
        report: Receives the errors.
    """
    parts = {}
    labeled = configs.get('labeled', {})
    title = str(labeled.get('of') or labeled.get('type'))
    for name, config in configs.items():
        try:
            check_data_paths(config, title)
            dataset = DATASETS.build(copy.deepcopy(dict(config)))
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
            if not len(dataset):
                raise ValueError('need at least one array')
        except (OSError, ValueError) as error:
            # For an empty list of samples, mmengine raises numpy's error.
            empty = 'need at least one array' in str(error)
            sentence = str(error)
            if empty:
                sentence = f'The {name} dataset has no image. Correct its list or its folder.'
            report.add_problem(sentence)  # added once, even if all datasets miss the same folder
        else:
            parts[name] = dataset
    return parts


def parts_of_config(cfg: Mapping) -> dict[str, Mapping]:
    """Return the dataset configs of a training config, for :func:`build_parts`.

    Raises:
        ValueError: The config has no ``train_dataloader.dataset``.
    """
    if not (cfg.get('train_dataloader') or {}).get('dataset'):
        raise ValueError(
            'The config has no train_dataloader.dataset. Give the config of a training.'
        )
    parts: dict[str, Mapping] = {}
    for role, number, _, config in named_sets(cfg):
        if role in ('validation', 'test'):
            if config and config not in parts.values():
                parts[f'{role} {number + 1}' if number else role] = config
        else:
            parts.setdefault('labeled' if role == 'training' else role, config)
    return parts


def check_parts(
    parts: Mapping,
    report: Report,
    frames: int = FRAMES,
    quiet: bool = False,
    partition: bool | None = None,
) -> Report:
    """Check the datasets of a partition and their files, reading each file once.

    Errors: two parts share an image, by path or as a copy with the same name; an image or mask is missing or
    cannot be read; a mask has another size than its image, or a value that is not a class.
    Warnings: an image is listed twice; a class has no labeled pixel; two parts have neighboring video frames;
    an image is both labeled and unlabeled, if the two sets are not a partition.

    Args:
        parts: Datasets from :func:`build_parts`.
        report: Receives the results.
        frames: See :func:`~mmseg_semi.datasets.sequences.near_frames`.
        quiet: If True, show no progress bars.
        partition: Whether the labeled and unlabeled sets must be disjoint. Default: :func:`is_partition`.

    Returns:
        Report: ``report``.
    """
    paths = {name: image_files(dataset) for name, dataset in parts.items()}
    for name, dataset in parts.items():
        _check_files(name, dataset, paths[name], report)
    _check_disjoint(paths, is_partition(parts) if partition is None else partition, report)
    for name, dataset in parts.items():
        counts: dict[tuple, list[ClassCount]] = {}
        for leaf in leaves(dataset):
            sizes = _check_images(name, leaf.dataset, report, quiet)
            if name != 'unlabeled':
                _check_masks(name, leaf.dataset, sizes, report, quiet, counts)
        if name == 'labeled':
            for classes, found in counts.items():
                _tell_classes(classes, found, report)
    ids = {
        name: [
            name_
            for leaf in leaves(dataset)
            if _has_files(leaf.dataset)  # names of synthetic images contain numbers, too
            for name_ in relative_ids(leaf.dataset, image_paths(leaf.dataset))
        ]
        for name, dataset in parts.items()
    }
    _check_neighbors(ids, frames, report)
    _tell_identity(paths, report)
    return report


def is_partition(parts: Mapping) -> bool:
    """Whether the labeled and unlabeled lists are in one folder, as in every partition of this package.

    Only then an image in both lists is an error. Otherwise it is a warning, here, in ``tools/check_data.py``
    and in training: taking all images, or the list of the whole training set, as unlabeled is common
    (GPS-dagger adds the labeled images to it) and does not invalidate results.
    """
    if not all(name in parts for name in TRAINED_ON):
        return False
    lists = [
        getattr(leaf.dataset, 'ann_file', '') or ''
        for name in TRAINED_ON
        for leaf in leaves(parts[name])
    ]
    return all(lists) and len({osp.realpath(osp.dirname(path)) for path in lists}) == 1


def _has_files(dataset) -> bool:
    loaders = file_loaders(dataset)
    return isinstance(dataset, UnlabeledDataset) or any(
        isinstance(loader, LoadImageFromFile) for loader in loaders
    )


def relative_ids(dataset, paths: Sequence[str]) -> list[str]:
    """Return the paths of a dataset's images relative to its image folder, without ending.

    The ending is the dataset's ``img_suffix`` if it fits, so that the dataset can rebuild the path from the id.
    """
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path')
    folder = folder or osp.commonpath([osp.dirname(path) for path in paths])
    names = (osp.relpath(path, folder or '.').replace(os.sep, '/') for path in paths)
    suffixes = getattr(dataset, 'img_suffix', None) or ()
    suffixes = sorted((suffixes,) if isinstance(suffixes, str) else suffixes, key=len, reverse=True)
    return [_without_ending(name, suffixes) for name in names]


def _without_ending(name: str, suffixes: Sequence[str]) -> str:
    found = next((s for s in suffixes if name.lower().endswith(s.lower())), osp.splitext(name)[1])
    return name[: len(name) - len(found)]


def _check_files(name: str, dataset, paths: list[str], report: Report) -> None:
    report.facts.append(f'{name}: {len(paths)} images')
    twice = len(paths) - len(set(paths))
    if twice:
        report.warnings.append(
            f'{twice} of {len(paths)} lines of the {name} list repeat an image, which is then sampled more '
            'often.'
        )
    try:
        check_files_exist(dataset, name, f'the {name} dataset')
    except (FileNotFoundError, ValueError) as error:
        report.add_problem(str(error))


def _check_images(name: str, dataset, report: Report, quiet: bool) -> dict[str, tuple[int, int]]:
    """Load every image once; return (height, width) of the images that can be loaded."""
    if not _has_files(dataset):
        return {}
    paths = image_paths(dataset)
    gone = set(_missing(dataset, paths, LoadImageFromFile))
    there = [path for path in dict.fromkeys(paths) if path not in gone]
    survey = survey_images(there, list(file_loaders(dataset)), name, quiet=quiet)
    report.add_problems(f'{name} images cannot be read', survey.broken.values())
    sizes = zip(survey.paths, survey.sizes, strict=True)
    return {path: tuple(size) for path, size in sizes if size is not None}


def _missing(dataset, paths: Sequence[str], kind: type) -> list[str]:
    """Return the paths that a dataset's loader of class ``kind`` does not find, if its backend can tell."""
    loader = next((t for t in file_loaders(dataset) if isinstance(t, kind)), None)
    return look_for(paths, backend_of_loader(loader or {}, paths[0]))[0] if paths else []


def _check_disjoint(paths: dict[str, list[str]], partition: bool, report: Report) -> None:
    real = {name: dict(zip(real_paths(of), of, strict=True)) for name, of in paths.items()}
    for one, other in combinations(paths, 2):
        if one not in TRAINED_ON:
            continue
        shared = [path for key, path in real[one].items() if key in real[other]]
        copies = copies_of(real[one].keys() - real[other].keys(), real[other])
        why = (
            'an image is either labeled or unlabeled'
            if other in TRAINED_ON
            else 'they make the result invalid'
        )
        say: Callable[[str], None] = report.add_problem
        remedy = f'Remove them from one of the two lists, since {why}'
        if other in TRAINED_ON and not partition:
            say, remedy = (
                report.warnings.append,
                'They are trained on with and without their labels',
            )
        for found, what in ((shared, 'are'), (copies, 'have a copy of the same name')):
            if found:
                say(
                    f'{len(found)} {one} images {what} in the {other} set, the first is {min(found)}. {remedy}.'
                )


def _check_masks(
    name: str,
    dataset,
    image_sizes: Mapping[str, tuple[int, int]],
    report: Report,
    quiet: bool,
    counts: dict[tuple, list[ClassCount]],
) -> None:
    """Check the masks of a dataset and add its pixel counts to ``counts``, by its classes."""
    if not any(isinstance(loader, LoadAnnotations) for loader in file_loaders(dataset)):
        return
    infos = sample_infos(dataset)
    gone = set(_missing(dataset, [info['seg_map_path'] for info in infos], LoadAnnotations))
    infos = [info for info in infos if info['seg_map_path'] not in gone]
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not infos or not classes:
        if not classes:
            report.warnings.append(
                f'The {name} dataset has no class names, so its masks are not checked. Set metainfo.'
            )
        return
    paths = [info['seg_map_path'] for info in infos]
    loader = next(t for t in file_loaders(dataset) if isinstance(t, LoadAnnotations))
    backend = backend_of_loader(loader, paths[0])
    survey = survey_masks(paths, f'{name} masks', quiet=quiet, backend=backend)
    report.add_problems(f'{name} masks cannot be read', survey.problems.values())
    sizes = [image_sizes.get(info['img_path']) for info in infos]
    for kind, said in unmatched(survey, infos, sizes, list(file_loaders(dataset))).items():
        report.add_problems(f'{name} {kind}', said)
    masks = masks_of(Leaf(dataset, name, None), survey.pixels, infos[0])
    beyond, count = masks.beyond(), masks.counts()
    if beyond:
        values = ', '.join(f'{value} in {number}' for value, number in beyond.items())
        first = survey.paths[int(np.argmax(count.beyond > 0))]
        report.add_problem(
            f'{name} masks have values that are none of {len(classes)} classes ({values} masks, the first is '
            f'{first}). Correct the masks, the number of classes, or reduce_zero_label='
            f'{masks.reduce_zero_label}.'
        )
    counts.setdefault(tuple(classes), []).append(count)


def _tell_classes(classes, found: list[ClassCount], report: Report) -> None:
    counts = ClassCount(*map(np.concatenate, zip(*found, strict=True)))
    total = max(1, int(counts.pixels.sum()))
    rows = [
        (str(name), f'{share / total:8.2%}', str(images))
        for name, share, images in zip(
            classes, counts.pixels.sum(0), (counts.pixels > 0).sum(0), strict=True
        )
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f'  {name:<{width}} {share} {images:>7}' for name, share, images in rows]
    every = sum(int(part.sum()) for part in counts)
    void = counts.void.sum() / max(1, every)
    report.facts.append(
        '\n'.join(
            [
                f'  {"labeled class":<{width}}   pixels  images',
                *lines,
                f'  void: {void:.2%} of all',
            ]
        )
    )
    absent = [
        str(c) for c, images in zip(classes, (counts.pixels > 0).sum(0), strict=True) if not images
    ]
    if absent:
        report.warnings.append(
            f'No labeled image shows {", ".join(absent)}: nothing can be learned about '
            f'{"it" if len(absent) == 1 else "them"}. Draw the partition with --balanced, or label more images.'
        )


def _check_neighbors(ids: dict[str, list[str]], frames: int, report: Report) -> None:
    trained_on = [name for part in TRAINED_ON for name in ids.get(part, ())]
    for part in ids:
        if part == 'labeled':
            continue
        if part in TRAINED_ON:
            other, among = 'labeled', ids.get('labeled', [])
            consequence = 'then the labels show more than their number suggests'
        else:
            other, among = 'training', trained_on
            consequence = 'then the result is measured on scenes seen in training'
        near = near_frames(ids[part], among, frames)
        if near:
            nearest = min(near, key=lambda neighbor: neighbor.distance)
            report.warnings.append(
                f'{len(near)} of {len(ids[part])} {part} images lie within {frames} frames of a {other} image '
                f'by their names, such as {nearest.name} and {nearest.other}: if these are frames of a video, '
                f'{consequence}. Otherwise, set --frames 0.'
            )


def _tell_identity(paths: dict[str, list[str]], report: Report) -> None:
    if 'labeled' not in paths:
        return
    identity = identify(paths['labeled'])
    report.facts.append(f'labeled list: {identity.sentence()}')
    report.facts.extend(f'  not to be taken for: {rival}' for rival in identity.rivals)
    if 'unlabeled' in paths:
        together = identify([*paths['labeled'], *paths['unlabeled']]).match
        if together is not None and together.role == 'train':
            report.facts.append(f'labeled and unlabeled: all of {together}')
