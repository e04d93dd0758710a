"""Write the image lists for training and tuning on VOC animals and nuclei.

    python tools/evidence_lists.py voc_animals data/voc_animals
    python tools/evidence_lists.py nuclei data/nuclei

ROOT/splits contains the lists of the data set (docs/datasets.md). The tool writes, with one id per line,

    ROOT/lists/PARTITION/{labeled,unlabeled}.txt   for results: all other training images are unlabeled
    ROOT/lists/tuning/val.txt                      100 training images, to choose settings
    ROOT/lists/tuning/PARTITION/...                the partitions without these 100 images

PARTITION is classic_{92,183,366,732} or l{4,8,16,32}_{0,1,2}. In `all`, every training image is labeled. No
tuning image is labeled in any partition, and no validation image is in any list. The tuning images are the
first 100 of the sorted candidates after random.Random(0).shuffle, so the lists are the same on every machine.

For nuclei, the tool also writes

    ROOT/lists/dark/val.txt                        validation images with a mean value below 100 of 255
    ROOT/lists/dark/PARTITION/...                  the other dark images, if all labeled images are dark
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import cv2

from mmseg_semi.datasets.preparation import PreparationError, lines, read_text, write_all
from mmseg_semi.datasets.splits import random_order

TUNING_IMAGES = 100
#: Images of nuclei with a lower mean value (of 255) are dark. Fluorescence images are dark, stained tissue is
#: bright.
DARK_BELOW = 100
#: By data set: training lists, the one that tuning images are drawn from, the validation list, partitions.
SETS = {
    'voc_animals': (
        ('train_voc', 'sbd_only'),
        'train_voc',
        'val_voc',
        [f'classic_{count}' for count in (92, 183, 366, 732)],
    ),
    'nuclei': (
        ('all',),
        'all',
        'val',
        [f'l{count}_{draw}' for count in (4, 8, 16, 32) for draw in range(3)],
    ),
}


def make_lists(name: str, splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """The ids of each list file below ``lists``, sorted.

    Args:
        name: of the data set.
        splits: ids of each list that comes with it, and of its dark images (``dark``) if there are dark lists.

    Raises:
        PreparationError: A validation image is a training image, or too few images are left to tune on.
    """
    training, drawn_from, validation, partitions = SETS[name]
    train = {i for part in training for i in splits[part]}
    labeled = {part: set(splits[part]) for part in partitions}
    for part, ids in {**labeled, 'the training lists': train}.items():
        held_out = ids & set(splits[validation])
        strangers = ids - train
        if held_out or strangers:
            wrong = sorted(held_out or strangers)[0]
            where = f'in {validation}' if held_out else 'in no training list'
            raise PreparationError(
                f'{wrong} of {part} is {where}. Take the lists of the data set unchanged.'
            )
    candidates = set(splits[drawn_from]) - set().union(*labeled.values())
    if len(candidates) < TUNING_IMAGES:
        raise PreparationError(
            f'{drawn_from} has {len(candidates)} images that no partition labels, not {TUNING_IMAGES}. Take '
            'the lists of the data set unchanged.'
        )
    tuning = set(random_order(candidates, 0)[:TUNING_IMAGES])
    lists = {'tuning/val.txt': tuning}
    for folder, images in (('', train), ('tuning/', train - tuning)):
        lists[f'{folder}all/labeled.txt'] = images
        for part, ids in labeled.items():
            lists[f'{folder}{part}/labeled.txt'] = ids
            lists[f'{folder}{part}/unlabeled.txt'] = images - ids
    if 'dark' in splits:
        dark = set(splits['dark'])
        lists['dark/val.txt'] = dark & set(splits[validation])
        lists['dark/all/labeled.txt'] = dark & train
        for part, ids in labeled.items():
            if ids <= dark:
                lists[f'dark/{part}/labeled.txt'] = ids
                lists[f'dark/{part}/unlabeled.txt'] = (train & dark) - ids
    return {path: sorted(ids) for path, ids in lists.items()}


def dark_images(folder: Path, ids: list[str]) -> list[str]:
    """The ids of images in a folder with a mean value below :data:`DARK_BELOW`.

    Raises:
        PreparationError: An image is missing or cannot be read.
    """
    dark = []
    for name in ids:
        path = folder / f'{name}.jpg'
        image = cv2.imread(str(path))
        if image is None:
            raise PreparationError(
                f'{path} does not exist or is not an image. Prepare the data as docs/datasets.md says.'
            )
        if image.mean() < DARK_BELOW:
            dark.append(name)
    return dark


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dataset', choices=SETS)
    parser.add_argument('root', type=Path, metavar='ROOT')
    args = parser.parse_args(argv)
    training, _, validation, partitions = SETS[args.dataset]
    try:
        splits = {
            part: read_text(
                args.root / 'splits' / f'{part}.txt', 'Prepare the data as docs/datasets.md says'
            ).split()
            for part in (*training, validation, *partitions)
        }
        if args.dataset == 'nuclei':
            splits['dark'] = dark_images(args.root / 'img', [*splits['all'], *splits[validation]])
        lists = make_lists(args.dataset, splits)
        jobs = [(args.root / 'lists' / path, partial(lines, ids)) for path, ids in lists.items()]
        write_all(jobs, 'lists')
    except PreparationError as error:
        sys.exit(f'{parser.prog}: {error}')
    for path in (
        'tuning/val.txt',
        *(f'tuning/{part}/labeled.txt' for part in (*partitions, 'all')),
    ):
        print(f'lists/{path}: {len(lists[path])} images')


if __name__ == '__main__':
    main()
