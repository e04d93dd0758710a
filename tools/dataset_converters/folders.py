"""Convert a folder of images and a folder of masks to the layout of MMSegmentation.

    python tools/dataset_converters/folders.py IMAGES MASKS DST --classes background crack --val 0.2
    python tools/dataset_converters/folders.py IMAGES MASKS DST --colors colors.csv
    python tools/dataset_converters/folders.py IMAGES MASKS DST --ids 0=0 255=1

Subfolders and linked folders are searched, too. Hidden files and folders (names that start with a dot) are
left out and counted. A mask belongs to the image of the same name, without the endings (for ``street.jpg``
and ``street_mask.png``, set ``--mask-ending _mask.png``). Images without a mask are unlabeled images. It
writes to DST

    img_dir/{train,val,unlabeled}/NAME.jpg   copies, links (--link) or 8-bit RGB PNG files (--rgb)
    ann_dir/{train,val}/NAME.png             class indices, 255 = void, in the displayed orientation

Masks are palette or gray images of ids (class indices, or mapped by --ids), or color images with a color map
(--colors: JSON, CSV or text with a name and r, g, b per class; the name "void" is for pixels of no class).
Before the first file is written, it checks that all images are complete, and the size and the values or
colors of all masks. Run it again to complete an interrupted run. It stops if it would change a file, unless
--overwrite is given.
"""

import argparse
import io
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ImageOps, UnidentifiedImageError

from mmseg_semi.datasets.color_map import ColorMap, decode, read_color_map
from mmseg_semi.datasets.files import image_size, open_image, real_paths
from mmseg_semi.datasets.names import left_out
from mmseg_semi.datasets.orientation import VIEWS, Pair, orientation_of
from mmseg_semi.datasets.preparation import (
    VOID,
    PreparationError,
    add_arguments,
    decoding,
    png,
    require_folder,
    run_all,
    run_converter,
    write_all,
)
from mmseg_semi.datasets.splits import make_partition
from mmseg_semi.datasets.transforms.checks import CheckImageFile
from mmseg_semi.datasets.unlabeled import IMAGE_ENDINGS

MAX_UNNAMED = 64
"""Maximum number of classes without names. Gray masks with smoothed edges have more values."""
REPLACE = 'Replace it, or take it out of the folder'


class Found(NamedTuple):
    """Image files of a folder.

    Attributes:
        files (dict[str, Path]): By name, the path below the folder without the ending.
        others (Counter): Files with other endings, by ending.
        cased (list[Path]): Those of them that differ from the ending asked for in upper and lower case alone.
    """

    files: dict[str, Path]
    others: Counter
    cased: list[Path]


def walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files below ``folder``, in sorted order; links to folders are followed, hidden entries are not."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a parent folder
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                yield from walk(folder / entry.name, above | {real})
            else:
                yield folder / entry.name


def find(folder: Path, ending: str | None) -> Found:
    """Image files below ``folder``: those that end with ``ending``, or in any usual way."""
    found = Found({}, Counter(), [])
    for path in walk(folder):
        if not (path.name.endswith(ending) if ending else path.suffix.lower() in IMAGE_ENDINGS):
            found.others[path.suffix or path.name] += 1
            if ending and path.name.lower().endswith(ending.lower()):
                found.cased.append(path)
            continue
        if not path.is_file():
            raise PreparationError(f'{path} is a link to nothing. Restore the file, or remove it.')
        relative = path.relative_to(folder).as_posix()
        name = relative[: -len(ending or path.suffix)]
        if name in found.files:
            raise PreparationError(
                f'{path} and {found.files[name]} have the same name. Rename one, or say which ending counts '
                'with --image-ending or --mask-ending.'
            )
        found.files[name] = path
    return found


def in_form_of(masks: dict[str, Path], images: dict[str, Path]) -> dict[str, Path]:
    """The masks under the names of their images. Both may have different Unicode forms, as from macOS."""
    names = {unicodedata.normalize('NFC', name): name for name in images}
    named: dict[str, Path] = {}
    for name, path in masks.items():
        form = name if name in images else names.get(unicodedata.normalize('NFC', name), name)
        if form in named:
            raise PreparationError(
                f'{path} and {named[form]} have the same name in two Unicode forms. Remove one.'
            )
        named[form] = path
    return named


def read_mask(path: Path, colored: bool) -> np.ndarray:
    """A mask as integers (H, W), or uint8 (H, W, 3) if it has colors or ``colored`` is True.

    Raises:
        PreparationError: not readable, or compressed with loss.
    """
    with decoding(path, REPLACE), open_image(path) as image:
        if image.format in ('JPEG', 'MPO'):
            raise PreparationError(
                f'{path} is a JPEG, whose compression changes labels. Export the masks as PNG.'
            )
        if image.mode.startswith('F'):
            raise PreparationError(
                f'{path} holds numbers with fractions (mode {image.mode}). Save ids as an 8-bit PNG.'
            )
        if colored:
            return np.asarray(image.convert('RGB'))
        # Of 16 bits per channel, Pillow keeps the upper 8, in which all ids below 256 are 0.
        if image.format == 'PNG' and image.mode in ('RGB', 'RGBA', 'LA') and png_depth(path) == 16:
            raise PreparationError(
                f'{path} has {len(image.getbands())} channels of 16 bits. Save ids as a gray PNG.'
            )
        if image.mode in ('P', 'L', '1'):
            return np.asarray(image).astype(np.uint8)
        if image.mode.startswith('I'):
            return np.asarray(image)
        if image.mode == 'LA':
            return np.asarray(image)[..., 0]
        return np.asarray(image.convert('RGB'))


def png_depth(path: Path) -> int:
    """The bits per channel in the header of a PNG file."""
    with path.open('rb') as file:
        return file.read(25)[24]


def used_palette(path: Path) -> dict[int, tuple[int, int, int]]:
    """The colors of the indices that a mask with a palette uses, without 255; empty without a palette."""
    with decoding(path, REPLACE), open_image(path) as image:
        if image.mode != 'P':
            return {}
        used = np.flatnonzero(np.bincount(np.asarray(image).ravel(), minlength=256)[:VOID])
        colors = np.array(image.getpalette('RGB') or [], dtype=int).reshape(-1, 3)
        return {int(i): tuple(colors[i].tolist()) for i in used if i < len(colors)}


def look_at_image(path: Path, rgb: bool) -> tuple[int, int] | None:
    """(height, width) of a complete image as mmcv loads it; None if Pillow cannot read its format.

    Raises:
        PreparationError: not readable, truncated, or of more than 8 bits where ``rgb`` is to be written.
    """
    with decoding(path, REPLACE):
        CheckImageFile(rgb=False).transform(dict(img_path=str(path)))
        try:
            image = open_image(path)
        except UnidentifiedImageError:  # CheckImageFile has checked that another loader reads it
            if rgb:
                raise
            return None
        with image:
            if rgb and image.mode.startswith(('I', 'F')):
                raise PreparationError(
                    f'{path} has more than 8 bits (mode {image.mode}), and --rgb does not know its range. '
                    'Scale it to 8 bits first.'
                )
            if image.format not in ('JPEG', 'MPO', 'PNG'):
                image.load()  # CheckImageFile reads the end of these three formats only
        return image_size(str(path))


class Labels:
    """How masks become class indices.

    Args:
        colors: classes of color masks.
        ids: value = class index, 255 for void. None takes values as they are.
        classes: names, where ``colors`` does not give them.
    """

    def __init__(
        self, colors: ColorMap | None, ids: dict[int, int] | None, classes: tuple[str, ...] | None
    ) -> None:
        self.colors, self.ids = colors, ids
        self.classes = colors.classes if colors else classes
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, path: Path) -> tuple[np.ndarray, dict]:
        """The class indices of a mask, uint8 (H, W), and the pixels of values or colors without a class."""
        mask = read_mask(path, self.colors is not None)
        if self.colors is not None:
            return decode(mask, self.colors)
        if mask.ndim == 3:
            if (mask != mask[..., :1]).any():
                raise PreparationError(
                    f'{path} is a color image. Give --colors FILE, which names the class of each color.'
                )
            mask = mask[..., 0]
        return self._from_ids(mask)

    def _from_ids(self, mask: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        # Lookup tables take a tenth of the time of sorting, which only values beyond 16 bits need.
        deep = mask.dtype != np.uint8
        inverse = None
        if deep and (mask.min(initial=0) < 0 or mask.max(initial=0) >= 1 << 16):
            values, inverse = np.unique(mask, return_inverse=True)
            known = [int(value) in self._classes() for value in values]
            label = np.array([self._classes().get(int(value), VOID) for value in values])
            counts = np.bincount(inverse.ravel(), minlength=len(values))
        else:
            label, known = self._table(1 << 16 if deep else 1 << 8)
            values, inverse = range(len(label)), mask
            counts = np.bincount(mask.ravel(), minlength=len(label))
        unknown = {int(values[i]): int(counts[i]) for i in np.flatnonzero(counts) if not known[i]}
        return label[inverse].reshape(mask.shape).astype(np.uint8), unknown

    def _classes(self) -> dict[int, int]:
        if self.ids is not None:
            return self.ids
        return {c: c for c in (*range(len(self.classes) if self.classes else VOID), VOID)}

    def _table(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The class of each value below ``size`` (255 = none), and whether it has a class."""
        if size not in self._tables:
            classes = {value: c for value, c in self._classes().items() if value < size}
            label, known = np.full(size, VOID, dtype=np.uint8), np.zeros(size, dtype=bool)
            label[[*classes]], known[[*classes]] = [*classes.values()], True
            self._tables[size] = label, known
        return self._tables[size]

    def refuse(self, unknown: dict[Path, dict]) -> None:
        """Raise PreparationError if a mask had values or colors that no class has."""
        if not unknown:
            return
        total: Counter = Counter()
        for found in unknown.values():
            total.update(found)
        path, found = next(iter(unknown.items()))
        kind, remedy = (
            'values',
            'Map them with --ids VALUE=CLASS (255 = void), or name all --classes',
        )
        if self.colors is not None:
            kind = 'colors'
            remedy = 'Add them to the color map, under the name "void" where they are not a class'
        said = ', '.join(f'{value} ({count} pixels)' for value, count in total.most_common(8))
        more = f' and {len(total) - 8} more' if len(total) > 8 else ''
        here = ', '.join(f'{value} ({count} pixels)' for value, count in [*found.items()][:3])
        raise PreparationError(
            f'{len(unknown)} masks have {kind} that no class has: {said}{more}; the first such mask is '
            f'{path} with {here}. {remedy}.'
        )


def encode_rgb(path: Path) -> bytes:
    """The image as an 8-bit RGB PNG, turned as its EXIF entry says."""
    buffer = io.BytesIO()
    with decoding(path, REPLACE), open_image(path) as image:
        ImageOps.exif_transpose(image).convert('RGB').save(buffer, 'PNG')
    return buffer.getvalue()


def as_displayed(
    label: np.ndarray, image: Path, mask: Path, size: tuple[int, int], drawn_on: str | None
) -> np.ndarray:
    """The label map (H, W) turned as its image of (height, width) ``size`` is displayed.

    Raises:
        PreparationError: it fits no view of its image, or both where ``drawn_on`` is None.
    """
    pair = Pair.of_files(str(image), str(mask), size, label.shape, is_displayed=True)
    if pair is not None:
        try:
            return pair.match(label, drawn_on, setting='--drawn-on {}')
        except ValueError as error:
            raise PreparationError(str(error)) from None
    if label.shape != size:
        raise PreparationError(
            f'{mask} is {label.shape[0]}x{label.shape[1]} (height x width) but {image} is '
            f'{size[0]}x{size[1]}. Give every image a mask of the same size.'
        )
    return label


def check_masks(
    images: dict[str, Path],
    masks: dict[str, Path],
    sizes: dict,
    labels: Labels,
    drawn_on: str | None,
    nproc: int,
) -> Counter:
    """Decode every mask once; ``sizes`` has (height, width) of each image as it is displayed.

    Returns:
        Counter: Pixels per class index (255 = void).

    Raises:
        PreparationError: a mask of another size than its image, or with what no class has.
    """

    def look_at(name: str) -> tuple[np.ndarray, dict, dict]:
        label, unknown = labels(masks[name])
        size = sizes[name]
        if size is None:
            raise PreparationError(
                f'{images[name]} cannot be read as an image by Pillow. {REPLACE}.'
            )
        as_displayed(label, images[name], masks[name], size, drawn_on)
        # --colors and --ids say what the masks mean.
        unsaid = labels.colors is None and labels.ids is None
        colors = used_palette(masks[name]) if unsaid else {}
        return np.bincount(label.ravel(), minlength=VOID + 1), unknown, colors

    found = run_all(look_at, list(masks), 'checking masks', nproc)
    check_palettes(masks.values(), [colors for _, _, colors in found])
    labels.refuse(
        {
            masks[name]: unknown
            for name, (_, unknown, _) in zip(masks, found, strict=True)
            if unknown
        }
    )
    counts = np.sum([pixels for pixels, *_ in found], axis=0)
    pixels = Counter({int(i): int(counts[i]) for i in np.flatnonzero(counts)})
    if labels.colors is None and labels.ids is None:
        check_meaning(pixels, named=labels.classes is not None)
    return pixels


def check_palettes(paths: Iterable[Path], palettes: Iterable[dict]) -> None:
    """Raise PreparationError if an index has different colors in two masks, so that it is not a class."""
    first: dict[int, tuple[tuple, Path]] = {}
    for path, colors in zip(paths, palettes, strict=True):
        for index, color in colors.items():
            known, other = first.setdefault(index, (color, path))
            if known != color:
                raise PreparationError(
                    f'The palette index {index} is the color {known} in {other} and {color} in {path}, so it '
                    'is not the same class. Give --colors FILE, which names the class of each color, or '
                    '--ids if the indices are classes.'
                )


def check_meaning(pixels: Counter, named: bool) -> None:
    """Raise PreparationError if values that are taken for class indices may well be something else."""
    others = sorted(set(pixels) - {VOID})
    if VOID in pixels and len(others) == 1 and others[0] < 2:
        value = others[0]
        raise PreparationError(
            f'The masks hold nothing but {value} and 255, and 255 is void. Give --ids {value}={value} '
            f'255={1 - value} if 255 is a class, or --ids {value}={value} 255=255 if it is not.'
        )
    last = _last_class(pixels)
    if not named and last >= MAX_UNNAMED:
        raise PreparationError(
            f'The masks hold {len(set(pixels) - {VOID})} values of up to {last}, which would be {last + 1} '
            'classes without a name. Name them with --classes, map the values with --ids VALUE=CLASS, or '
            'export the masks without smoothed edges where these make the values.'
        )


def check_places(
    options: argparse.Namespace, sources: Sequence[Path], places: Sequence[Path]
) -> None:
    """Raise PreparationError if results would lie among the sources, or replace one of them.

    Args:
        options: with the folders IMAGES, MASKS and DST.
        sources: files that are read.
        places: files that are written.
    """
    outputs = {options.target / kind for kind in ('img_dir', 'ann_dir')}
    outputs |= {place.parent for place in places}
    real = {folder: folder.resolve() for folder in outputs}  # a link may lead anywhere
    for folder, name in ((options.images, 'images'), (options.masks, 'masks')):
        source = folder.resolve()
        if options.target.resolve().is_relative_to(source):
            raise PreparationError(
                f'{options.target} lies in {folder}, where results would be taken for {name}. Name a '
                'folder outside of it.'
            )
        for output, path in real.items():
            if path.is_relative_to(source) or source.is_relative_to(path):
                raise PreparationError(
                    f'{output}, which results go to, and {folder}, which has the {name}, lie in one another '
                    f'({path} and {source}). Name a target apart from the sources.'
                )
    own = set(real_paths([str(path) for path in sources]))
    for place in places:
        if str(real[place.parent] / place.name) in own:
            raise PreparationError(
                f'{place} is itself one of the files that are read. Name a target apart from the sources.'
            )


def check_leaks(target: Path, splits: dict[str, dict[str, Path]], rgb: bool) -> None:
    """Raise PreparationError if an earlier run left an image in another split, or under another ending."""
    there: dict[str, dict[str, list[Path]]] = {}
    folders = (target / 'img_dir').glob('*')
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        stems = there.setdefault(folder.name, {})
        for path in walk(folder):
            if path.suffix.lower() in IMAGE_ENDINGS:
                stem = path.relative_to(folder).with_suffix('').as_posix()
                stems.setdefault(stem, []).append(path)
    for split, images in splits.items():
        for name, path in images.items():
            for other, stems in there.items():
                for twin in stems.get(name, ()):
                    if other == split:
                        again = twin.suffix == ('.png' if rgb else path.suffix)
                    else:
                        again = not same_image(path, twin)
                    if not again:
                        raise PreparationError(
                            f'{path} is for {split}, but an earlier run put it at {twin}. Remove img_dir and '
                            f'ann_dir of {target} and run again, or name another target, since other options '
                            'and masks that came since change what goes where.'
                        )


def others_there(target: Path, splits: Iterable[str], places: set[Path]) -> list[Path]:
    """Images and masks of these splits that this run does not write, such as those of removed sources."""
    return [
        path
        for kind, split in itertools.product(('img_dir', 'ann_dir'), splits)
        if (folder := target / kind / split).is_dir()
        for path in walk(folder)
        if path not in places and path.suffix.lower() in IMAGE_ENDINGS
    ]


def same_image(first: Path, second: Path) -> bool:
    """Whether two files are the same image: the same bytes, or the same 8-bit pixels as mmcv turns them."""
    if first.read_bytes() == second.read_bytes():
        return True
    try:
        with open_image(first) as one, open_image(second) as other:
            if any(image.mode.startswith(('I', 'F')) for image in (one, other)):
                return False  # becoming 8 bits would cut them off
            one, other = ImageOps.exif_transpose(one), ImageOps.exif_transpose(other)
            return one.size == other.size and one.convert('RGB') == other.convert('RGB')
    except (OSError, ValueError, SyntaxError):  # what is there is no image
        return False


def _image_bytes(path: Path, rgb: bool) -> bytes:
    return encode_rgb(path) if rgb else path.read_bytes()


def one_ending(images: dict[str, Path]) -> None:
    """Raise PreparationError if labeled images end differently: mmseg's datasets have one img_suffix."""
    endings = sorted({path.suffix for path in images.values()})
    if len(endings) > 1:
        raise PreparationError(
            f'The labeled images end in {" and ".join(endings)}, but a dataset has one img_suffix. Give '
            '--rgb, which writes all of them as .png.'
        )


def jobs_of(
    target: Path, splits, masks, sizes: dict, labels: Labels, palette, options
) -> Iterator[tuple]:
    def mask_bytes(name: str, image: Path) -> bytes:
        label, _ = labels(masks[name])
        return png(as_displayed(label, image, masks[name], sizes[name], options.drawn_on), palette)

    for split, images in splits.items():
        for name, path in images.items():
            place = target / 'img_dir' / split
            file = place / (f'{name}.png' if options.rgb else f'{name}{path.suffix}')
            yield file, path if options.link else partial(_image_bytes, path, options.rgb)
            if split != 'unlabeled':
                make = partial(mask_bytes, name, path)
                yield target / 'ann_dir' / split / f'{name}.png', make


def convert(options: argparse.Namespace) -> str:
    """Convert; all images are looked at and all masks decoded before the first file is written.

    Returns:
        str: What was found, for the reader.

    Raises:
        PreparationError: If the folders are not what they should be or a file would be overwritten.
    """
    for folder, name in ((options.images, 'IMAGES'), (options.masks, 'MASKS')):
        require_folder(folder, f'Give the folder of {name.lower()} as {name}')
    check_places(options, (), ())
    colors = read_color_map(options.colors) if options.colors else None
    images, others, cased = find(options.images, options.image_ending)
    masks, _, cased_masks = find(options.masks, options.mask_ending)
    for files, name in ((cased, '--image-ending'), (cased_masks, '--mask-ending')):
        if files:
            raise PreparationError(
                f'{files[0]} and {len(files) - 1} other files end as {name} says but in another case. Rename '
                'them alike, or leave the option out where any usual ending will do.'
            )
    if options.images.resolve() == options.masks.resolve() and not options.mask_ending:
        raise PreparationError(
            'IMAGES and MASKS are one folder. Say with --mask-ending which files are masks.'
        )
    if not masks:
        raise PreparationError(
            f'{options.masks} has no mask. Give a folder of PNG files, or --mask-ending.'
        )
    mask_files = set(masks.values())
    images = {name: path for name, path in images.items() if path not in mask_files}
    masks = in_form_of(masks, images)
    orphans = [path for name, path in masks.items() if name not in images]
    if orphans:
        raise PreparationError(
            f'{len(orphans)} of {len(masks)} masks have no image of their name, the first is '
            f'{orphans[0]}. Restore the images, or say with --mask-ending and --image-ending how names end.'
        )
    looks = partial(look_at_image, rgb=options.rgb)
    found = run_all(looks, list(images.values()), 'checking images', options.nproc)
    image_sizes = dict(zip(images, found, strict=True))
    labels = Labels(colors, options.ids, tuple(options.classes) if options.classes else None)
    pixels = check_masks(images, masks, image_sizes, labels, options.drawn_on, options.nproc)

    labeled = {name: images[name] for name in masks}
    if not options.rgb:
        one_ending(labeled)
    splits = split_up(labeled, options)
    splits['unlabeled'] = {name: path for name, path in images.items() if name not in masks}
    classes = labels.classes or tuple(f'class_{i}' for i in range(_last_class(pixels) + 1))
    palette = colors.palette if colors else default_palette(len(classes))
    jobs = list(jobs_of(options.target, splits, masks, image_sizes, labels, palette, options))
    check_places(options, [*images.values(), *masks.values()], [place for place, _ in jobs])
    check_leaks(options.target, splits, options.rgb)
    write_all(jobs, 'writing', options.overwrite, options.nproc)
    suffix = '.png' if options.rgb else next(iter(labeled.values())).suffix
    sizes = Counter(image_sizes[name] for name in masks)
    said = report(options.target, splits, sizes, pixels, classes, palette, suffix)
    if not options.rgb and any(orientation_of(path) != 1 for path in labeled.values()):
        said += (
            "\nof the images with an EXIF orientation the masks are as displayed. Set drawn_on='displayed' of "
            'LoadAnnotations, or give --rgb.'
        )
    if others and not options.image_ending:
        counts = ', '.join(f'{count} {ending}' for ending, count in others.most_common())
        said += f'\nwarning: files of {options.images} with no ending of an image were left out: {counts}'
    written = dict(splits)
    # A second run, for validation images, does not concern the unlabeled images of the first.
    if options.split != 'train' and not splits['unlabeled']:
        del written['unlabeled']
    rest = others_there(options.target, written, {place for place, _ in jobs})
    if rest:
        said += (
            f'\nwarning: {len(rest)} files there are not from these folders, the first is {rest[0]}. A '
            'training uses them, too. Remove them if their sources were removed.'
        )
    for folder in dict.fromkeys((options.images, options.masks)):
        said += ''.join(f'\nwarning: {sentence}' for sentence in left_out(str(folder)))
    return said


def split_up(labeled: dict[str, Path], options) -> dict[str, dict[str, Path]]:
    """The labeled images by split."""
    if options.val is None:
        return {options.split: labeled}
    try:
        val, train = make_partition(labeled, options.val, options.seed)
    except ValueError as error:
        reason = str(error).removeprefix('make_partition: ')
        if not 0 < options.val < 1:
            reason = 'Give the share of validation images among the labeled ones, such as 0.2.'
        raise PreparationError(f'--val {options.val}: {reason}') from None
    return {
        'train': {name: labeled[name] for name in train},
        'val': {name: labeled[name] for name in val},
    }


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The color palette of Pascal VOC, computed from the bits of the class index."""
    return tuple(
        tuple(sum((i >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3)) for c in range(3))
        for i in range(num_classes)
    )


def _last_class(pixels: Counter) -> int:
    return max((index for index in pixels if index != VOID), default=0)


def report(target, splits, sizes, pixels, classes, palette, suffix) -> str:
    """The report, and the settings for the config."""
    total = sum(pixels.values())
    counts = ', '.join(f'{len(images)} {split}' for split, images in splits.items())
    some = ', '.join(f'{w}x{h} ({n})' for (h, w), n in sizes.most_common(3))
    said = [
        f'{target}: {counts}',
        f'sizes (width x height): {some}{" ..." if len(sizes) > 3 else ""}',
    ]
    for index, name in enumerate(classes):
        said.append(f'  {index:3d} {name}: {pixels[index] / total:.2%} of all pixels')
    said.append(f'  255 void: {pixels[VOID] / total:.2%}')
    missing = [name for index, name in enumerate(classes) if not pixels[index]]
    if missing:
        said.append(f'no pixel of: {", ".join(missing)}')
    colors = [list(color) for color in palette]
    said += [
        'for the config:',
        f'    metainfo=dict(classes={tuple(classes)!r}, palette={colors}),',
    ]
    if suffix != '.jpg':
        said.append(f"    img_suffix='{suffix}',")
    return '\n'.join(said)


def ids_of(texts: list[str] | None) -> dict[int, int] | None:
    """``['0=0', '255=1']`` as a dict. Raises PreparationError if it is invalid."""
    if texts is None:
        return None
    ids: dict[int, int] = {}
    for text in texts:
        value, _, index = text.partition('=')
        if not (value.isascii() and value.isdigit() and index.isascii() and index.isdigit()):
            raise PreparationError(
                f'--ids {text} is not VALUE=CLASS. Write whole numbers, such as 255=1.'
            )
        if int(value) in ids:
            raise PreparationError(f'--ids names the value {int(value)} twice. Give it one class.')
        if int(index) > VOID:
            raise PreparationError(
                f'--ids {text} must have a class index of at most 254, or 255 for void.'
            )
        ids[int(value)] = int(index)
    return ids


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, metavar='IMAGES')
    parser.add_argument('masks', type=Path, metavar='MASKS')
    parser.add_argument('target', type=Path, metavar='DST')
    parser.add_argument('--colors', type=Path, metavar='FILE', help='color map of color masks')
    parser.add_argument('--ids', nargs='+', metavar='VALUE=CLASS', help='class of each gray value')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='class names, in the order of class indices'
    )
    parser.add_argument('--image-ending', help='ending of image files (default: any common ending)')
    parser.add_argument('--mask-ending', help='ending of mask files (default: any common ending)')
    parser.add_argument(
        '--split', default='train', help='set of the labeled images (default: train)'
    )
    parser.add_argument(
        '--val', type=float, metavar='SHARE', help='share of labeled images for val'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed of --val (default: 0)')
    parser.add_argument(
        '--drawn-on',
        choices=VIEWS,
        help='orientation of masks whose image has an EXIF orientation, if the sizes do not show it',
    )
    images = parser.add_mutually_exclusive_group()
    images.add_argument('--link', action='store_true', help='link images instead of copying them')
    images.add_argument('--rgb', action='store_true', help='write images as 8-bit RGB PNG files')
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.colors and (options.ids or options.classes):
        parser.error('--colors already defines the classes. Remove --ids and --classes.')
    if not re.fullmatch(r'\w[\w.-]*', options.split) or options.split == 'unlabeled':
        parser.error(
            f'--split {options.split} must be the name of one folder, such as train, val or test, and '
            'unlabeled is that of the images without a mask.'
        )
    twice = [name for name, count in Counter(options.classes).items() if count > 1]
    if twice:
        parser.error(f'--classes has {twice[0]} twice. Give every class a different name.')
    if options.val is not None and options.split != 'train':
        parser.error('--val splits into train and val. Remove --split.')
    try:
        options.ids = ids_of(options.ids)
        beyond = [
            i for i in (options.ids or {}).values() if i != VOID and i >= len(options.classes or ())
        ]
        if beyond and options.classes:
            raise PreparationError(
                f'--ids maps to class {max(beyond)}, but --classes has {len(options.classes)} names. Give all.'
            )
    except PreparationError as error:
        parser.error(str(error))
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
