"""Check all data of a config before training: report the contents and what would stop or harm training.

report = check_data(cfg)
print('\\n'.join(report.lines()))
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from tqdm import tqdm

from .backends import backend_of_loader, is_local, local_copy, local_loader
from .children import (
    build_child,
    check_hidden,
    not_taken_remedy,
    pipeline_transforms,
    searched_folder,
    taken_files,
)
from .files import image_size, open_image, real_paths
from .labels import MaskSurvey, survey_masks
from .meanings import READINGS, Meaning, compare_all, meanings_of, meanings_of_labels
from .names import files_below, is_hidden, left_out
from .orientation import Pair
from .preparation import decoding
from .pseudo_labeled import LABELS_SUMMARY
from .report import SHOWN, Report
from .transforms.checks import CheckImageFile, with_file_checks
from .transforms.loading import LoadImageFromFile as OurLoader
from .void_check import Masks, annotation_loader, masks_of, missing_class
from .walk import Leaf, leaves, named_sets, sample_infos

_REMEDY = 'Replace it, or take it out of the list'


@dataclass
class ImageSurvey:
    """Result of reading a list of image files, in its order.

    Attributes:
        paths (list[str]): N files.
        sizes (list): (height, width) as loaded; None if the file cannot be read.
        kinds (list): File format and loaded format, in words; None if the file cannot be read.
        digests (list): Hash of the loaded pixels; None if the file cannot be read or only its header was.
        broken (dict[str, str]): One sentence for each file that cannot be read.
        unlike (dict[str, str]): One sentence for each image that the loader must convert to 8-bit RGB.
    """

    paths: list[str]
    sizes: list = field(default_factory=list)
    kinds: list = field(default_factory=list)
    digests: list = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class SetReport(Report):
    """Report on one set of images of a config.

    Attributes:
        role (str): Purpose of the set, such as 'labeled' or 'validation'.
        key (str): Config key of the set.
        name (str): The role, with a number if there are several sets.
        images (ImageSurvey, optional): Images of the set; None if there are no files.
        meanings (list[Meaning]): Meaning of the class indices; empty without classes.
        masks (Masks, optional): Content of the masks; None unless MMSegmentation's loader reads them.
    """

    role: str
    key: str
    name: str
    images: ImageSurvey | None = None
    meanings: list[Meaning] = field(default_factory=list)
    masks: Masks | None = None


@dataclass
class DataReport:
    """Reports on all sets of a config, and problems between sets."""

    sets: list[SetReport]
    leaks: list[str]
    notes: list[str]

    @property
    def num_problems(self) -> int:
        """Number of problems to fix, in files or whole sets."""
        inside = sum(len(said) for part in self.sets for said in part.problems.values())
        return inside + len(self.leaks)

    def lines(self) -> list[str]:
        """Return the report as text lines, with at most the first few problems of each kind."""
        lines = []
        for part in self.sets:
            lines += [f'{part.name} ({part.key})', *(f'  {line}' for line in part.facts), '']
        for part in self.sets:
            lines += part.listed(part.name)
        lines += [f'PROBLEM: {sentence}' for sentence in self.leaks]
        lines += [f'warning: {sentence}' for sentence in self.notes]
        found = self.num_problems
        lines.append(f'{found} problem(s) to fix.' if found else 'No problem found.')
        return lines


def check_data(
    cfg: Config, workers: int = 4, quick: bool = False, quiet: bool = False
) -> DataReport:
    """Check every file of the training, validation and test sets.

    Args:
        cfg: Any MMSegmentation config with at least one dataset.
        workers: Number of reader threads.
        quick: If True, read only the headers and ends of image files. Truncated files are then found by their
            ends, and images shared by two sets by their paths.
        quiet: If True, show no progress bars.

    Raises:
        ValueError: The config has no dataset.
    """
    wanted = list(dataset_configs(cfg))
    if not wanted:
        raise ValueError(f'{cfg.filename} has no dataset. Give the config of a training or a test.')
    sets = [
        report
        for entry in wanted
        for report in _check_set(*entry, workers=workers, quick=quick, quiet=quiet)
    ]
    leaks, notes = _shared_images(sets)
    same_masks, void = _startup_settings(cfg)
    for difference in compare_all([*(m for part in sets for m in part.meanings), *_of_labels(cfg)]):
        usual = difference.of == 'palette' or (difference.of in READINGS and not same_masks)
        (notes if usual else leaks).append(difference.sentence)
    leaks += _of_heads(cfg.get('model') or {}, [m for part in sets for m in part.meanings])
    if void:
        for role in dict.fromkeys(part.role for part in sets):
            counted = [part.masks for part in sets if part.role == role and part.masks is not None]
            leaks += filter(None, [missing_class(counted)])
    return DataReport(sets, leaks, notes)


def _startup_settings(cfg: Config) -> tuple[bool, bool]:
    """Return ``same_masks`` and ``check_masks`` of StartupCheckHook, as in training."""
    hooks = [h for h in cfg.get('custom_hooks') or () if h.get('type') == 'StartupCheckHook']
    hook = hooks[0] if hooks else {}
    return hook.get('same_masks', True), hook.get('check_masks', True)


def _of_heads(model: Mapping, meanings: Sequence[Meaning]) -> list[str]:
    """Return a sentence for the first head with another number of classes than a dataset."""
    network = model.get('segmentor', model)
    for key in ('decode_head', 'auxiliary_head'):
        heads = network.get(key) or ()
        for head in [heads] if isinstance(heads, Mapping) else heads:
            number = head.get('num_classes')
            # The head of STDC predicts boundaries.
            if number is None or head.get('type') == 'STDCHead':
                continue
            for meaning in meanings:
                if len(meaning.classes) != number:
                    return [
                        f'{key}.num_classes={number} but {meaning.key} has {len(meaning.classes)} classes. '
                        f'Set num_classes={len(meaning.classes)} in every head, or correct the metainfo of '
                        'the dataset.'
                    ]
    return []


def _of_labels(cfg: Config) -> list[Meaning]:
    """Return the meanings of the pseudo-labels in a training config that exist already."""
    train = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    labels = (train.get('pseudo_labeled') or {}).get('labels') or []
    folders = [labels] if isinstance(labels, str) else labels
    return meanings_of_labels(f for f in folders if os.path.isfile(os.path.join(f, LABELS_SUMMARY)))


def dataset_configs(cfg: Config):
    """Yield ``(role, key, config, check)`` for each set of a config; equal validation and test sets once.

    ``check`` is the ``check_files`` of the training; None if the files are not checked while loading.
    """
    seen = []
    for role, _, key, config in named_sets(cfg):
        check = None
        if role in ('labeled', 'unlabeled'):
            check = cfg['train_dataloader']['dataset'].get('check_files', True)
        elif role in ('validation', 'test'):
            if config in seen:
                continue
            seen.append(config)
        yield role, key, config, check


def _check_set(role, key, config, check, *, workers, quick, quiet) -> list[SetReport]:
    """Report on each dataset within the config of a set. The set is built as a whole, as in training."""
    kind = 'unlabeled' if role == 'unlabeled' else 'labeled'
    try:
        dataset = build_child(kind, config, name=role, key=key)
    except (OSError, ValueError) as error:
        report = SetReport(role=role, key=key, name=role, facts=['not there, see below'])
        report.add_problems('set that cannot be built', [str(error)])
        return [report]
    found = leaves(dataset, key, kind)
    taken = taken_files(dataset)
    return [
        _check_leaf(
            SetReport(
                role=role,
                key=leaf.key,
                name=role if len(found) == 1 else f'{role} {index}',
                meanings=meanings_of(leaf.dataset, leaf.key, leaf.kind),
            ),
            leaf.dataset,
            check,
            taken,
            workers=workers,
            quick=quick,
            quiet=quiet,
        )
        for index, leaf in enumerate(found, start=1)
    ]


def _check_leaf(report: SetReport, dataset, check, taken, *, workers, quick, quiet) -> SetReport:
    infos = sample_infos(dataset)
    files = [info for info in infos if info.get('img_path') and 'shapes' not in info]
    report.facts.append(f'{len(infos)} images, {type(dataset).__name__}')
    if len(files) < len(infos):
        report.facts.append(f'{len(infos) - len(files)} of them are not local files: not checked')
    if not files:
        return report
    folder = searched_folder(dataset)
    if folder is not None:
        report.warnings += [*_left_out(dataset, folder, taken), *left_out(folder)]
        try:
            check_hidden(Leaf(dataset, report.key, None), folder, infos, report.name)
        except ValueError as error:
            report.add_problems('images in hidden folders', [str(error)])
    transforms = pipeline_transforms(dataset)
    paths = [info['img_path'] for info in files]
    report.images = images = survey_images(paths, transforms, report.name, workers, quick, quiet)
    report.facts.append(f'sizes (width x height): {_sizes(images.sizes)}')
    report.facts.append(f'files: {_counted(images.kinds)}')
    # Training reports images of another kind before it loads them, so they are reported below.
    broken = (s for p, s in images.broken.items() if check is not True or p not in images.unlike)
    report.add_problems('images that cannot be read', broken)
    _judge_modes(report, images, check)
    twice = len(paths) - len(set(real_paths(paths)))
    if twice:
        report.warnings.append(f'{twice} images are listed more than once.')
    if any(isinstance(t, LoadAnnotations) for t in transforms):
        _check_masks(report, dataset, files, images, transforms, workers, quiet)
    elif report.role != 'unlabeled':
        report.warnings.append('no LoadAnnotations in the pipeline: masks are not checked.')
    return report


def _left_out(dataset, folder: str, taken: set[str]) -> list[str]:
    """Report the files of a searched folder that are not among the taken ones."""
    others = Counter(
        os.path.splitext(name)[1] or os.path.basename(name)
        for name in files_below(folder)
        if os.path.normpath(os.path.join(folder, name)) not in taken and not is_hidden(name)
    )
    if not others:
        return []
    said = ', '.join(f'{count} {ending}' for ending, count in others.most_common(SHOWN))
    return [
        f'{sum(others.values())} files of {folder} are not among its images ({said}). '
        + not_taken_remedy(dataset)
    ]


def survey_images(
    paths: Sequence[str],
    transforms: Sequence,
    what: str = 'images',
    workers: int = 4,
    quick: bool = False,
    quiet: bool = False,
) -> ImageSurvey:
    """Load every image as the pipeline does, or read only its header (``quick``).

    Args:
        paths: Paths of the files.
        transforms: Transforms of the pipeline, with its loader and file checks.
        what: Noun for the progress bar.
        workers: Number of reader threads.
        quick: If True, read only headers, see :func:`check_data`.
        quiet: If True, show no progress bar.
    """
    checked, _ = with_file_checks(list(transforms), None, labeled=False)
    rgb = any(isinstance(t, CheckImageFile) and t.rgb for t in checked)
    loader = first_of(transforms, LoadImageFromFile) or OurLoader()
    survey = ImageSurvey(list(paths))
    look = partial(_look_at, loader=loader, rgb=rgb, quick=quick)
    backend = backend_of_loader(loader, survey.paths[0]) if survey.paths else None
    if backend is not None and not is_local(backend):
        look = partial(
            _look_behind, backend=backend, loader=local_loader(loader), rgb=rgb, quick=quick
        )
    # Read the first file before starting threads: this opens a connection, such as a database, that they share.
    first = [look(path) for path in survey.paths[:1]]
    with ThreadPoolExecutor(workers) as pool:
        results = chain(first, pool.map(look, survey.paths[1:]))
        bar = tqdm(results, f'{what} images', len(survey.paths), disable=quiet, unit='img')
        for path, (size, kind, digest, broken, unlike) in zip(survey.paths, bar, strict=True):
            survey.sizes.append(size)
            survey.kinds.append(kind)
            survey.digests.append(digest)
            if broken:
                survey.broken[path] = broken
            if unlike:
                survey.unlike[path] = unlike
    return survey


def _look_at(path: str, loader, rgb: bool, quick: bool) -> tuple:
    """Return (size, kind, digest, why the file is broken, why it is of another kind) of one file."""
    unlike = None
    try:
        with decoding(Path(path), _REMEDY):
            CheckImageFile(rgb=False).transform(dict(img_path=path))
            kind, size = _header(path, loader)
    except ValueError as error:
        return None, None, None, str(error), None
    if rgb:
        try:
            CheckImageFile(rgb=True).transform(dict(img_path=path))
        except ValueError as error:
            unlike = str(error)
    if quick:
        return size, kind, None, None, unlike
    try:
        image = loader.transform(dict(img_path=path))['img']
    except Exception as error:  # from any decoder; its message goes into the report
        reason = ' '.join(str(error).split()).rstrip('.') or type(error).__name__
        said = f'{path} cannot be loaded ({reason}). {_REMEDY}.'
        if reason.startswith(path):  # the error is already a full sentence
            said = f'{reason}.'
        return None, None, None, said, unlike
    channels = image.shape[2] if image.ndim == 3 else 1
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16)
    digest.update(str((image.shape, image.dtype)).encode())
    loaded = f'{kind}, loaded as {channels} channel(s) of {image.dtype}'
    return image.shape[:2], loaded, digest.digest(), None, unlike


def _look_behind(path: str, backend, loader, rgb: bool, quick: bool) -> tuple:
    """Same as :func:`_look_at`, for a file behind a backend."""
    try:
        with local_copy(path, backend) as file:
            *found, broken, unlike = _look_at(file, loader, rgb, quick)
            said = (text and text.replace(file, path) for text in (broken, unlike))
            return *found, *said
    except OSError as error:
        return None, None, None, f'{path} cannot be loaded ({error}). {_REMEDY}.', None


def _header(path: str, loader) -> tuple[str, tuple[int, int] | None]:
    """Return the file format in words and (height, width) as loaded; None if Pillow cannot tell."""
    try:
        with open_image(path) as image:
            size = image_size(path) if displays(loader) else (image.height, image.width)
            return f'{image.format} {image.mode}', size
    except OSError:
        return path.rpartition('.')[2].upper(), None


def _judge_modes(report: SetReport, images: ImageSurvey, check) -> None:
    """Report images that training would refuse as problems, and images that it would convert as warnings."""
    if check is True:
        report.add_problems('images that are not 8-bit RGB', images.unlike.values())
    elif images.unlike and check != 'complete':
        first = next(iter(images.unlike))
        report.warnings.append(
            f'{len(images.unlike)} images are not 8-bit RGB and are turned into it while loading, the first is '
            f'{first}.'
        )
    channels = {kind.partition(', loaded as ')[2] for kind in images.kinds if kind}
    if len(channels) > 1:
        report.warnings.append(f'images are loaded in several ways: {", ".join(sorted(channels))}.')


def _check_masks(report, dataset, infos, images: ImageSurvey, transforms, workers, quiet) -> None:
    without = [info['img_path'] for info in infos if not info.get('seg_map_path')]
    report.add_problems(
        'images without a mask',
        (f'{path} has no mask. Set seg_map_path of data_prefix.' for path in without),
    )
    pairs = [
        (info, size)
        for info, size in zip(infos, images.sizes, strict=True)
        if info.get('seg_map_path')
    ]
    leaf = Leaf(dataset, report.key, None)
    loader = next(t for t in pipeline_transforms(dataset) if isinstance(t, LoadAnnotations))
    paths = [info['seg_map_path'] for info, _ in pairs]
    backend = backend_of_loader(loader, paths[0]) if paths else None
    masks = survey_masks(paths, f'{report.name} masks', workers, quiet, backend)
    if annotation_loader(leaf) is not None:
        report.masks = masks_of(leaf, masks.pixels, pairs[0][0])
    report.add_problems('masks that cannot be read', masks.problems.values())
    sizes = [size for _, size in pairs]
    for kind, said in unmatched(masks, [info for info, _ in pairs], sizes, transforms).items():
        report.add_problems(kind, said)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not pairs or not classes:
        report.warnings.append('the dataset has no class names: values of masks are not checked.')
        return
    _report_classes(report, masks, masks_of(leaf, masks.pixels, pairs[0][0]))


def unmatched(
    masks: MaskSurvey, infos: Sequence[dict], sizes: Sequence, transforms: Sequence
) -> dict[str, list[str]]:
    """Report the masks that do not fit their image, by kind of problem.

    Args:
        masks: Masks of the images, in their order.
        infos: Sample infos of the dataset.
        sizes: (height, width) of the images as loaded; None if unknown.
        transforms: Transforms of the pipeline; its loaders define how images and masks are rotated.
    """
    turning = displays(first_of(transforms, LoadImageFromFile))
    drawn_on = getattr(first_of(transforms, LoadAnnotations), 'drawn_on', None)
    found: dict[str, list[str]] = {
        'masks of another size than their image': [],
        'masks that may be turned against their image': [],
    }
    other, turned = found.values()
    for path, size, info, own in zip(masks.paths, masks.sizes, infos, sizes, strict=True):
        if size is None or own is None:
            continue
        pair = Pair.of_files(info['img_path'], path, tuple(own), tuple(size), turning)
        if pair is not None:
            try:
                pair.view(info.get('drawn_on', drawn_on))
            except ValueError as error:
                (turned if pair.views else other).append(str(error))
        elif tuple(size) != tuple(own):
            other.append(
                f'{path} is {size[0]}x{size[1]} (height x width) but its image {info["img_path"]} is '
                f'{own[0]}x{own[1]}. Give every image a mask of the same size.'
            )
    return {kind: said for kind, said in found.items() if said}


def first_of(transforms: Sequence, kind: type):
    """Return the first transform of class ``kind``; None if there is none."""
    return next((transform for transform in transforms if isinstance(transform, kind)), None)


def displays(loader) -> bool:
    """Whether an image loader applies the EXIF orientation: its ``displays``, or True if it has none."""
    return getattr(loader, 'displays', True)


def _report_classes(report: Report, masks: MaskSurvey, read: Masks) -> None:
    classes, count, beyond = read.classes, read.counts(), read.beyond()
    total = int(masks.pixels.sum())
    if beyond:
        said = ', '.join(f'{value} (in {number} masks)' for value, number in beyond.items())
        bad = [path for path, n in zip(masks.paths, count.beyond, strict=True) if n]
        counting = (
            ''
            if read.reduce_zero_label
            else ', or set reduce_zero_label=True if labels count from 1'
        )
        report.add_problems(
            'masks with values beyond the classes',
            (
                f'{path} has values that are none of the {len(classes)} classes and not {read.void}; '
                f'over all masks: {said}. '
                f'Correct the masks or the classes of metainfo{counting}.'
                for path in bad
            ),
        )
    if not total:
        return
    empty = int(((count.void > 0) & (count.pixels.sum(1) + count.beyond == 0)).sum())
    report.facts.append(
        f'{len(masks.paths) - len(masks.problems)} masks, void {count.void.sum() / total:.2%} of the pixels'
        + (f', {empty} masks contain only void' if empty else '')
    )
    width = max(len(str(name)) for name in classes)
    labeled = max(1, int(count.pixels.sum()))
    for index, name in enumerate(classes):
        share, number = (
            count.pixels[:, index].sum() / labeled,
            int((count.pixels[:, index] > 0).sum()),
        )
        report.facts.append(
            f'{index:4d} {name!s:{width}} {share:8.3%} of the labels, in {number} images'
        )
    absent = [str(n) for n, pixels in zip(classes, count.pixels.sum(0), strict=True) if pixels == 0]
    if absent:
        report.warnings.append(f'no pixel of: {", ".join(absent)}.')


def _shared_images(sets: Sequence[SetReport]) -> tuple[list[str], list[str]]:
    """Report images that two sets share: leaks into an evaluation set, and others."""
    leaks, notes = [], []
    parts = [(part, part.images) for part in sets if part.images is not None]
    for i, (first, images) in enumerate(parts):
        for second, others in parts[i + 1 :]:
            pairs = _same_images(images, others)
            if not pairs:
                continue
            one, other = pairs[0]
            sentence = (
                f'{len(pairs)} images of the {second.name} set are also in the {first.name} set, the first is '
                f'{other}' + (f', which is {one} by content' if one != other else '')
            )
            roles = {first.role, second.role}
            evaluated = {'validation', 'test'} & roles
            if len(roles) == 1 or evaluated == roles:
                notes.append(f'{sentence}.')
            elif evaluated:
                leaks.append(
                    f'{sentence}: they make the result invalid, remove them from the {first.name} set.'
                )
            else:
                notes.append(f'{sentence}: they are trained on with and without their labels.')
    return leaks, notes


def _same_images(first: ImageSurvey, second: ImageSurvey) -> list[tuple[str, str]]:
    """Return (path in the first, path in the second) of the images that both surveys contain."""
    by_path = dict(zip(real_paths(first.paths), first.paths, strict=True))
    by_content = {
        d: path for d, path in zip(first.digests, first.paths, strict=True) if d is not None
    }
    found = []
    for path, real, digest in zip(
        second.paths, real_paths(second.paths), second.digests, strict=True
    ):
        same = by_path.get(real) or by_content.get(digest)
        if same is not None:
            found.append((same, path))
    return found


def _sizes(sizes: Iterable) -> str:
    counts = Counter(size for size in sizes if size is not None)
    if len(counts) <= SHOWN:
        return ', '.join(f'{w}x{h} ({n})' for (h, w), n in counts.most_common()) or 'none readable'
    heights, widths = zip(*counts, strict=True)
    (h, w), n = counts.most_common(1)[0]
    return (
        f'{len(counts)} different ones, widths {min(widths)} to {max(widths)}, heights {min(heights)} to '
        f'{max(heights)}, most often {w}x{h} ({n})'
    )


def _counted(kinds: Iterable) -> str:
    counts = Counter(kind for kind in kinds if kind is not None)
    return '; '.join(f'{kind} ({n})' for kind, n in counts.most_common(SHOWN)) or 'none readable'
