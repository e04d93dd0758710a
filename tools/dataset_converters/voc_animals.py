"""VOC animals: the images of Pascal VOC 2012 that show animals, with masks of 7 classes, at 160 pixels.

    python tools/dataset_converters/voc_animals.py data/VOCdevkit/VOC2012 data/voc_animals

SRC is VOC 2012 with the masks of SBD (tools/dataset_converters/voc_aug.py). The tool writes to DST

    img/ID.jpg                    160 pixels on the longer side, JPEG of quality 88
    mask/ID.png                   of the same size, nearest neighbor: 0 background, 1 cat, 2 cow, 3 dog,
                                  4 horse, 5 person, 6 sheep; 255 is void and every other object
    splits/train_voc.txt          images of VOC's train
    splits/val_voc.txt            images of VOC's val
    splits/sbd_only.txt           other images with a mask of SBD
    splits/classic_COUNT.txt      ids of SRC/splits/classic/COUNT/labeled.txt that are in train_voc

The data set has the images whose mask contains a cat, cow, dog, horse or sheep. The published lists of the
classic partitions are not part of this package. docs/datasets.md describes how to import them into SRC. Run
it again to complete an interrupted run. It stops if it would change a file, unless --overwrite is given.
"""

import argparse
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_semi.datasets import VOCAnimalsDataset
from mmseg_semi.datasets.files import open_image
from mmseg_semi.datasets.preparation import (
    VOID,
    PreparationError,
    add_arguments,
    check_counts,
    decoding,
    lines,
    png,
    read_image,
    read_text,
    require_file,
    run_all,
    run_converter,
    write_all,
)

OFFICIAL = {'train_voc': 437, 'val_voc': 445, 'sbd_only': 2694}
CLASSIC = (92, 183, 366, 732)
LONG_SIDE = 160
QUALITY = 88
#: VOC's index of each class: background, cat, cow, dog, horse, person, sheep.
VOC_INDICES = (0, 8, 10, 12, 13, 15, 17)
ANIMALS = (8, 10, 12, 13, 17)
REMEDY = 'Run tools/dataset_converters/voc_aug.py, and give its folder VOC2012 as SRC'

TABLE = np.full(256, VOID, np.uint8)
TABLE[list(VOC_INDICES)] = range(len(VOCAnimalsDataset.METAINFO['classes']))


def size_of(width: int, height: int) -> tuple[int, int]:
    """Width and height of an image that is 160 pixels on its longer side."""
    scale = LONG_SIDE / max(width, height)
    return round(width * scale), round(height * scale)


def resized(path: Path) -> bytes:
    """The image as a small JPEG file."""
    buffer = io.BytesIO()
    with decoding(path, REMEDY), open_image(path) as image:
        image = image.convert('RGB').resize(size_of(*image.size), Image.Resampling.BICUBIC)
        image.save(buffer, 'JPEG', quality=QUALITY)
    return buffer.getvalue()


def mask(path: Path) -> bytes:
    """The mask as a small gray PNG file of the seven classes."""
    label = Image.fromarray(TABLE[read_image(path, REMEDY)])
    return png(np.asarray(label.resize(size_of(*label.size), Image.Resampling.NEAREST)))


def shows_animal(path: Path) -> bool:
    """Whether a mask of VOC's classes has a pixel of an animal."""
    label = read_image(path, REMEDY)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise PreparationError(f'{path} is not a map of class indices. {REMEDY}.')
    return bool(np.isin(label, ANIMALS).any())


def convert(options: argparse.Namespace) -> str:
    """Convert; every list and mask is looked at before the first file is written.

    Returns:
        str: Images per list.

    Raises:
        PreparationError: If the source is not what it should be or a file would be overwritten.
    """
    source, target = options.source, options.target
    images, masks = source / 'JPEGImages', source / 'SegmentationClassAug'
    lists = source / 'ImageSets' / 'Segmentation'
    train, val, trainaug = (
        set(read_text(lists / f'{name}.txt', REMEDY).split())
        for name in ('train', 'val', 'trainaug')
    )
    ids = sorted(train | val | trainaug)
    for name in ids:
        require_file(masks / f'{name}.png', REMEDY)
        require_file(images / f'{name}.jpg', REMEDY)
    shown = run_all(
        shows_animal, [masks / f'{name}.png' for name in ids], 'looking for animals', options.nproc
    )
    animals = {name for name, shows in zip(ids, shown, strict=True) if shows}
    splits = {
        'train_voc': animals & train,
        'val_voc': animals & val,
        'sbd_only': animals & (trainaug - train - val),
    }
    counts = {name: len(found) for name, found in splits.items()}
    check_counts(source, counts, OFFICIAL, options.partial)
    for count in CLASSIC:
        published = source / 'splits' / 'classic' / str(count) / 'labeled.txt'
        if published.is_file():
            labeled = set(read_text(published, REMEDY).split())
            splits[f'classic_{count}'] = labeled & splits['train_voc']
    jobs = []
    for name in sorted(set().union(*splits.values())):
        jobs.append((target / 'img' / f'{name}.jpg', partial(resized, images / f'{name}.jpg')))
        jobs.append((target / 'mask' / f'{name}.png', partial(mask, masks / f'{name}.png')))
    write_all(jobs, 'images and masks', options.overwrite, options.nproc)
    # Lists are written last, so that there is no list without its images.
    jobs = [
        (target / 'splits' / f'{name}.txt', partial(lines, sorted(found)))
        for name, found in splits.items()
    ]
    write_all(jobs, 'lists', options.overwrite)
    return f'{target}: ' + ', '.join(f'{len(found)} {name}' for name, found in splits.items())


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='SRC')
    parser.add_argument('target', type=Path, metavar='DST')
    add_arguments(parser, partial='accept other counts than 437, 445 and 2694')
    options = parser.parse_args(arguments)
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
