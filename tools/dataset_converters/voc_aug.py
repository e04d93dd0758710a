"""Add the masks of SBD to Pascal VOC 2012: `SegmentationClassAug`, 10582 training images.

    python tools/dataset_converters/voc_aug.py data/VOCdevkit data/VOCdevkit/VOCaug

DEVKIT contains VOC2012/ of the VOC archive. SBD contains dataset/{cls,train.txt,val.txt} of benchmark.tgz. It
writes

    DEVKIT/VOC2012/SegmentationClassAug/NAME.png           the mask of VOC if there is one, else that of SBD
    DEVKIT/VOC2012/ImageSets/Segmentation/trainaug.txt     10582 names: those of SBD and VOC without VOC's val
    DEVKIT/VOC2012/ImageSets/Segmentation/aug.txt          those of them without a mask of VOC

The converter of MMSegmentation reads the masks of SBD. All lists are read and all files are counted before the
first one is written. Each mask is checked when it is converted. Run it again to complete an interrupted run. It
stops if it would change a file, unless --overwrite is given.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_semi.compat import stock_converter
from mmseg_semi.datasets.preparation import (
    VOID,
    PreparationError,
    add_arguments,
    check_counts,
    lines,
    png,
    read_image,
    read_text,
    require_file,
    require_folder,
    run_converter,
    write_all,
)

OFFICIAL = {'train': 1464, 'val': 1449, 'trainaug': 10582, 'aug': 9118}
NUM_CLASSES = 21
VOC_REMEDY = 'Unpack VOCtrainval_11-May-2012.tar, and give its folder VOCdevkit as DEVKIT'
SBD_REMEDY = 'Unpack benchmark.tgz of SBD, and give its folder benchmark_RELEASE as SBD'


def read_list(path: Path, remedy: str) -> list[str]:
    """The ids of a list file."""
    return read_text(path, remedy).split()


def check_label(label: np.ndarray, path: Path) -> np.ndarray:
    """``label``; PreparationError unless it is a map of VOC's classes."""
    if (
        label.ndim != 2
        or label.dtype != np.uint8
        or label[label != VOID].max(initial=0) >= NUM_CLASSES
    ):
        raise PreparationError(
            f'{path} holds other values than 0..{NUM_CLASSES - 1} and {VOID}. Unpack the archive again.'
        )
    return label


def decode_mat(converter, path: Path) -> bytes:
    """SBD's class map as a PNG file, read as MMSegmentation reads it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            converter.convert_mat(path.name, str(path.parent), folder)
        except Exception as error:  # scipy raises many types of errors for broken files
            reason = ' '.join(str(error).split()).rstrip('.')
            raise PreparationError(
                f'{path} is not a class map of SBD ({reason}). Unpack the archive again.'
            ) from None
        with Image.open(Path(folder) / f'{path.stem}.png') as image:
            return png(check_label(np.asarray(image), path))


def read_voc(path: Path) -> bytes:
    """VOC's mask as it is, after a look at its values."""
    check_label(read_image(path, 'unpack the archive again'), path)
    return path.read_bytes()


def convert(options: argparse.Namespace) -> str:
    """Convert; every list is read and every file looked for before the first file is written.

    Returns:
        str: The counts.

    Raises:
        PreparationError: If the source is not what it should be or a file would be overwritten.
    """
    voc, sbd = options.devkit / 'VOC2012', options.sbd / 'dataset'
    lists = voc / 'ImageSets' / 'Segmentation'
    train, val = (read_list(lists / f'{name}.txt', VOC_REMEDY) for name in ('train', 'val'))
    require_folder(sbd / 'cls', SBD_REMEDY)
    labeled = {
        name for split in ('train', 'val') for name in read_list(sbd / f'{split}.txt', SBD_REMEDY)
    }
    trainaug = sorted((labeled | set(train)) - set(val))
    aug = sorted(set(trainaug) - set(train))
    counts = {
        name: len(ids) for name, ids in zip(OFFICIAL, (train, val, trainaug, aug), strict=True)
    }
    check_counts(voc, counts, OFFICIAL, options.partial)

    converter = stock_converter('voc_aug')
    jobs = []
    for names, folder, suffix, read in (
        (sorted({*train, *val}), voc / 'SegmentationClass', '.png', read_voc),
        (aug, sbd / 'cls', '.mat', partial(decode_mat, converter)),
    ):
        for name in names:
            path = folder / f'{name}{suffix}'
            require_file(path, VOC_REMEDY if suffix == '.png' else SBD_REMEDY)
            require_file(voc / 'JPEGImages' / f'{name}.jpg', VOC_REMEDY)
            jobs.append(
                (voc / 'SegmentationClassAug' / path.with_suffix('.png').name, partial(read, path))
            )
    write_all(jobs, 'masks', options.overwrite, options.nproc)
    # Lists are written last, so that there is no list without its masks.
    for name, ids in (('trainaug', trainaug), ('aug', aug)):
        path = lists / f'{name}.txt'
        if not path.is_file() or sorted(path.read_bytes().split()) != [i.encode() for i in ids]:
            # Any order will do.
            write_all([(path, partial(lines, ids))], f'{name}.txt', options.overwrite)
    return f'{voc}: ' + ', '.join(f'{count} {name}' for name, count in counts.items())


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('devkit', type=Path, metavar='DEVKIT')
    parser.add_argument('sbd', type=Path, metavar='SBD')
    add_arguments(parser, partial='accept other counts than 1464, 1449 and 10582')
    options = parser.parse_args(arguments)
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
