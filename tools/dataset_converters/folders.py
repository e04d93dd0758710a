"""Lay out a folder of images and a folder of masks for MMSegmentation.

    python tools/dataset_converters/folders.py IMAGES MASKS DST --classes background crack --val 0.2
    python tools/dataset_converters/folders.py IMAGES MASKS DST --colors colors.csv
    python tools/dataset_converters/folders.py IMAGES MASKS DST --ids 0=0 255=1

A mask belongs to the image of its name, whatever the endings are (``--mask-ending _mask.png`` for
``street_mask.png`` beside ``street.jpg``). Images without a mask are the unlabelled ones. DST gets

    img_dir/{train,val,unlabeled}/NAME.jpg   copies, links (--link) or 8-bit RGB PNG files (--rgb)
    ann_dir/{train,val}/NAME.png             class indices, 255 = void

Masks are palette images or grey ones that hold ids (mapped by --ids, else taken as class indices), or
colour images with a colour map (--colors: JSON, CSV or text with a name and r, g, b per class; name a
class "void" for what no class owns). All masks are checked before the first file is written: their sizes,
their values, their colours. Running it again completes an interrupted run; a file that would change is an
error unless --overwrite is given.
"""

import argparse
import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from mmseg_semi.datasets.color_map import ColorMap, decode, read_color_map
from mmseg_semi.datasets.preparation import (
    VOID,
    PreparationError,
    add_arguments,
    png,
    require_folder,
    run_converter,
    write_all,
)
from mmseg_semi.datasets.splits import make_partition

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_EXIF_ORIENTATION = 0x0112


def find(folder: Path, ending: str | None) -> dict[str, Path]:
    """Image files below ``folder`` by name: path below it without the ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        fits = path.name.endswith(ending) if ending else path.suffix.lower() in ENDINGS
        if not fits or path.name.startswith('.') or not path.is_file():
            continue
        relative = path.relative_to(folder).as_posix()
        name = relative[: -len(ending or path.suffix)]
        if name in found:
            raise PreparationError(
                f'{path} and {found[name]} have the same name: rename one, or say which ending counts with '
                '--image-ending or --mask-ending.'
            )
        found[name] = path
    return found


def read_ids(path: Path) -> np.ndarray:
    """A mask as integers (H, W), or uint8 (H, W, 3) where it has colours.

    Raises:
        PreparationError: not readable, or compressed with loss.
    """
    try:
        with Image.open(path) as image:
            if image.format in ('JPEG', 'MPO'):
                raise PreparationError(
                    f'{path} is a JPEG, whose compression changes labels: export the masks as PNG.'
                )
            if image.mode.startswith('F'):
                raise PreparationError(
                    f'{path} holds numbers with fractions (mode {image.mode}): save ids as an 8-bit PNG.'
                )
            if image.mode in ('P', 'L', '1') or image.mode.startswith('I'):
                return np.asarray(image).astype(np.int64)
            if image.mode == 'LA':
                return np.asarray(image)[..., 0].astype(np.int64)
            return np.asarray(image.convert('RGB'))
    except (OSError, Image.DecompressionBombError) as error:
        reason = ' '.join(str(error).split()).rstrip('.')
        raise PreparationError(
            f'{path} cannot be read as an image ({reason}): replace it, or take it out of the folder.'
        ) from None


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) as mmcv loads the image: turned as its EXIF entry says."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except (OSError, Image.DecompressionBombError) as error:
        reason = ' '.join(str(error).split()).rstrip('.')
        raise PreparationError(
            f'{path} cannot be read as an image ({reason}): replace it, or take it out of the folder.'
        ) from None
    return (width, height) if turned else (height, width)


class Labels:
    """How masks become class indices; ``unknown`` collects what no class has, by file.

    Args:
        colors: classes of colour masks.
        ids: value = class index, 255 for void. None takes values as they are.
        classes: names, where ``colors`` does not give them.
    """

    def __init__(
        self, colors: ColorMap | None, ids: dict[int, int] | None, classes: tuple[str, ...] | None
    ) -> None:
        self.colors, self.ids = colors, ids
        self.classes = colors.classes if colors else classes
        self.unknown: dict[Path, dict] = {}

    def __call__(self, path: Path) -> np.ndarray:
        """The class indices of a mask, uint8 (H, W)."""
        mask = read_ids(path)
        if self.colors is not None:
            if mask.ndim == 2:
                with Image.open(path) as image:
                    mask = np.asarray(image.convert('RGB'))
            label, unknown = decode(mask, self.colors)
        else:
            if mask.ndim == 3:
                if (mask != mask[..., :1]).any():
                    raise PreparationError(
                        f'{path} is a colour image: give --colors FILE, which names the class of each colour.'
                    )
                mask = mask[..., 0]
            label, unknown = self._from_ids(mask)
        if unknown:
            self.unknown[path] = unknown
        return label

    def _from_ids(self, mask: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        values, inverse, counts = np.unique(mask, return_inverse=True, return_counts=True)
        classes = range(len(self.classes) if self.classes else VOID)
        table = self.ids if self.ids is not None else {c: c for c in (*classes, VOID)}
        label = np.array([table.get(int(value), VOID) for value in values], dtype=np.uint8)
        unknown = {
            int(value): int(count)
            for value, count in zip(values, counts, strict=True)
            if int(value) not in table
        }
        return label[inverse].reshape(mask.shape), unknown

    def check(self) -> None:
        """Raise PreparationError if a mask had a value or a colour that no class has."""
        if not self.unknown:
            return
        total: Counter = Counter()
        for found in self.unknown.values():
            total.update(found)
        path, found = next(iter(self.unknown.items()))
        kind, remedy = (
            'values',
            'map them with --ids VALUE=CLASS (255 = void), or name all --classes',
        )
        if self.colors is not None:
            kind = 'colours'
            remedy = 'add them to the colour map, under the name "void" where they are no class'
        said = ', '.join(f'{value} ({count} pixels)' for value, count in total.most_common(8))
        more = f' and {len(total) - 8} more' if len(total) > 8 else ''
        here = ', '.join(f'{value} ({count} pixels)' for value, count in [*found.items()][:3])
        raise PreparationError(
            f'{len(self.unknown)} masks have {kind} that no class has: {said}{more}; the first such mask is '
            f'{path} with {here}: {remedy}.'
        )


def encode_rgb(path: Path) -> bytes:
    """The image as an 8-bit RGB PNG, turned as its EXIF entry says."""
    with Image.open(path) as image:
        if image.mode.startswith(('I', 'F')):
            raise PreparationError(
                f'{path} has more than 8 bits (mode {image.mode}): --rgb does not know its range, scale '
                'it to 8 '
                'bits first.'
            )
        buffer = io.BytesIO()
        ImageOps.exif_transpose(image).convert('RGB').save(buffer, 'PNG')
    return buffer.getvalue()


def check_masks(
    images: dict[str, Path], masks: dict[str, Path], labels: Labels
) -> tuple[Counter, Counter]:
    """Decode every mask once.

    Returns:
        tuple: Pixels per class index (255 = void) and images per (height, width).

    Raises:
        PreparationError: a mask without an image, of another size, or with what no class has.
    """
    orphans = [path for name, path in masks.items() if name not in images]
    if orphans:
        raise PreparationError(
            f'{len(orphans)} of {len(masks)} masks have no image of their name, the first is '
            f'{orphans[0]}: restore '
            'the images, or say with --mask-ending and --image-ending how names end.'
        )
    pixels, sizes = Counter(), Counter()
    for name, path in tqdm(masks.items(), desc='checking masks', unit='file'):
        label = labels(path)
        size = size_of(images[name])
        if label.shape != size:
            raise PreparationError(
                f'{path} is {label.shape[0]}x{label.shape[1]} (height x width) but {images[name]} is '
                f'{size[0]}x{size[1]}: give every image a mask of its own size.'
            )
        sizes[size] += 1
        counts = np.bincount(label.ravel(), minlength=256)
        pixels.update({i: int(counts[i]) for i in np.flatnonzero(counts)})
    labels.check()
    if set(pixels) == {0, VOID} and labels.colors is None and labels.ids is None:
        raise PreparationError(
            'The masks hold nothing but 0 and 255, and 255 is void: give --ids 0=0 255=1 if 255 is a class, or '
            '--ids 0=0 255=255 if it is not.'
        )
    return pixels, sizes


def check_leaks(target: Path, splits: dict[str, dict[str, Path]], rgb: bool) -> None:
    """Raise PreparationError if an image of a split lies in another one already, from an earlier run."""
    others = [folder for folder in sorted((target / 'img_dir').glob('*')) if folder.is_dir()]
    for split, images in splits.items():
        for name, path in images.items():
            file = f'{name}.png' if rgb else f'{name}{path.suffix}'
            for twin in (folder / file for folder in others if folder.name != split):
                if twin.is_file() and twin.read_bytes() == _image_bytes(path, rgb):
                    raise PreparationError(
                        f'{path} is for {split}, but an earlier run put it at {twin}: remove it and its mask '
                        'there, give the --val and --seed of that run, or another target.'
                    )


def _image_bytes(path: Path, rgb: bool) -> bytes:
    return encode_rgb(path) if rgb else path.read_bytes()


def one_ending(images: dict[str, Path]) -> None:
    """Raise PreparationError if labelled images end differently: mmseg's datasets have one img_suffix."""
    endings = sorted({path.suffix for path in images.values()})
    if len(endings) > 1:
        raise PreparationError(
            f'The labelled images end in {" and ".join(endings)}, but a dataset has one img_suffix: give '
            '--rgb, '
            'which writes all of them as .png.'
        )


def jobs_of(target: Path, splits, masks, labels: Labels, palette, options) -> Iterator[tuple]:
    for split, images in splits.items():
        for name, path in images.items():
            place = target / 'img_dir' / split
            file = place / (f'{name}.png' if options.rgb else f'{name}{path.suffix}')
            yield file, path if options.link else partial(_image_bytes, path, options.rgb)
            if split != 'unlabeled':
                make = partial(lambda mask: png(labels(mask), palette), masks[name])
                yield target / 'ann_dir' / split / f'{name}.png', make


def convert(options: argparse.Namespace) -> str:
    """Convert; everything is looked at before the first file is written.

    Returns:
        str: What was found, for the reader.

    Raises:
        PreparationError: If the folders are not what they should be or a file would be overwritten.
    """
    for folder, name in ((options.images, 'IMAGES'), (options.masks, 'MASKS')):
        require_folder(folder, f'give the folder of {name.lower()} as {name}')
        if options.target.resolve().is_relative_to(folder.resolve()):
            raise PreparationError(
                f'{options.target} lies in {folder}, where results would be taken for {name.lower()}: name a '
                'folder outside of it.'
            )
    try:
        colors = read_color_map(options.colors) if options.colors else None
    except ValueError as error:
        raise PreparationError(str(error)) from None
    images, masks = (
        find(options.images, options.image_ending),
        find(options.masks, options.mask_ending),
    )
    if options.images.resolve() == options.masks.resolve() and not options.mask_ending:
        raise PreparationError(
            'IMAGES and MASKS are one folder: say with --mask-ending which files are masks.'
        )
    images = {name: path for name, path in images.items() if path not in set(masks.values())}
    if not masks:
        raise PreparationError(
            f'{options.masks} has no mask: give a folder of PNG files, or --mask-ending.'
        )
    labels = Labels(colors, options.ids, tuple(options.classes) if options.classes else None)
    pixels, sizes = check_masks(images, masks, labels)

    labeled = {name: images[name] for name in masks}
    if not options.rgb:
        one_ending(labeled)
    splits = split_up(labeled, options)
    splits['unlabeled'] = {name: path for name, path in images.items() if name not in masks}
    check_leaks(options.target, splits, options.rgb)
    classes = labels.classes or tuple(f'class_{i}' for i in range(_last_class(pixels) + 1))
    palette = colors.palette if colors else default_palette(len(classes))
    jobs = list(jobs_of(options.target, splits, masks, labels, palette, options))
    write_all(jobs, 'writing', options.overwrite, options.nproc)
    suffix = '.png' if options.rgb else next(iter(labeled.values())).suffix
    return report(options.target, splits, sizes, pixels, classes, palette, suffix)


def split_up(labeled: dict[str, Path], options) -> dict[str, dict[str, Path]]:
    """The labelled images by split."""
    if options.val is None:
        return {options.split: labeled}
    try:
        val, train = make_partition(labeled, options.val, options.seed)
    except ValueError as error:
        reason = str(error).removeprefix('make_partition: ')
        raise PreparationError(f'--val {options.val}: {reason}') from None
    return {
        'train': {name: labeled[name] for name in train},
        'val': {name: labeled[name] for name in val},
    }


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Black and then colours that differ: those of Pascal VOC, bit by bit from the index."""
    return tuple(
        tuple(sum((i >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3)) for c in range(3))
        for i in range(num_classes)
    )


def _last_class(pixels: Counter) -> int:
    return max((index for index in pixels if index != VOID), default=0)


def report(target, splits, sizes, pixels, classes, palette, suffix) -> str:
    """What was found, and the lines of a config that say it."""
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
    """``['0=0', '255=1']`` as a dict; PreparationError where it is none."""
    if texts is None:
        return None
    ids: dict[int, int] = {}
    for text in texts:
        value, _, index = text.partition('=')
        if not (value.isascii() and value.isdigit() and index.isascii() and index.isdigit()):
            raise PreparationError(
                f'--ids {text} is not VALUE=CLASS: write whole numbers, such as 255=1.'
            )
        if int(value) in ids:
            raise PreparationError(f'--ids names the value {int(value)} twice: give it one class.')
        if int(index) > VOID:
            raise PreparationError(f'--ids {text}: a class index is at most 254, and 255 is void.')
        ids[int(value)] = int(index)
    return ids


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, metavar='IMAGES')
    parser.add_argument('masks', type=Path, metavar='MASKS')
    parser.add_argument('target', type=Path, metavar='DST')
    parser.add_argument('--colors', type=Path, metavar='FILE', help='colour map of colour masks')
    parser.add_argument('--ids', nargs='+', metavar='VALUE=CLASS', help='class of each grey value')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='names, in the order of indices'
    )
    parser.add_argument(
        '--image-ending', help='how files of images end (default: any usual ending)'
    )
    parser.add_argument('--mask-ending', help='how files of masks end (default: any usual ending)')
    parser.add_argument(
        '--split', default='train', help='where labelled images go (default: train)'
    )
    parser.add_argument('--val', type=float, metavar='SHARE', help='share that goes to val instead')
    parser.add_argument('--seed', type=int, default=0, help='of the draw for val (default: 0)')
    images = parser.add_mutually_exclusive_group()
    images.add_argument('--link', action='store_true', help='link images instead of copying them')
    images.add_argument('--rgb', action='store_true', help='write images as 8-bit RGB PNG files')
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.colors and (options.ids or options.classes):
        parser.error('--colors names the classes already: leave out --ids and --classes.')
    if options.val is not None and options.split != 'train':
        parser.error('--val splits into train and val: leave out --split.')
    try:
        options.ids = ids_of(options.ids)
        beyond = [
            i for i in (options.ids or {}).values() if i != VOID and i >= len(options.classes or ())
        ]
        if beyond and options.classes:
            raise PreparationError(
                f'--ids maps to class {max(beyond)}, but --classes names {len(options.classes)}: name them all.'
            )
    except PreparationError as error:
        parser.error(str(error))
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
