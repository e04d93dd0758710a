"""Convert the annotations of Cityscapes to masks of the 19 training classes.

    python tools/dataset_converters/cityscapes.py data/cityscapes

ROOT contains leftImg8bit/ and gtFine/ from the two archives. Next to each annotation of train and val, it
writes

    gtFine/{train,val}/CITY/NAME_gtFine_labelTrainIds.png      0..18, 255 = void

If `cityscapesscripts` is installed, the converter of MMSegmentation draws the polygons. Otherwise the ids of
NAME_gtFine_labelIds.png, which are in the same archive, are mapped to class indices. Both give the same
pixels. --polygons and --ids select one of them. The number of files is checked (2975, 500) before the first
one is written. Run it again to complete an interrupted run. It stops if it would change a file, unless
--overwrite is given.
"""

import argparse
import importlib.util
import shutil
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
    png,
    read_image,
    require_file,
    require_folder,
    run_converter,
    write_all,
)

OFFICIAL = {'train': 2975, 'val': 500}
#: Label ids of the classes, in the order of their training ids (the table of cityscapesScripts, labels.py).
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_IDS = 34
REMEDY = 'Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip in ROOT'
IMAGE, IDS, POLYGONS, TARGET = (
    '_leftImg8bit.png',
    '_gtFine_labelIds.png',
    '_gtFine_polygons.json',
    '_gtFine_labelTrainIds.png',
)


def train_ids() -> np.ndarray:
    """uint8 (256,): training id of each label id."""
    table = np.full(256, VOID, dtype=np.uint8)
    table[list(CLASS_IDS)] = np.arange(len(CLASS_IDS))
    return table


def from_ids(path: Path) -> bytes:
    """The training ids of an image of label ids, as a PNG file."""
    ids = read_image(path, 'unpack the archive again')
    if ids.ndim != 2 or ids.dtype != np.uint8 or ids.max(initial=0) >= NUM_IDS:
        raise PreparationError(
            f'{path} holds other values than the label ids 0..{NUM_IDS - 1}. Unpack the archive again.'
        )
    return png(train_ids()[ids])


def from_polygons(converter, path: Path) -> bytes:
    """The training ids of a file of polygons, drawn as MMSegmentation's converter draws them."""
    with tempfile.TemporaryDirectory() as folder:
        # The converter writes next to its source, where an interrupted run would leave an incomplete file.
        copied = shutil.copy(path, folder)
        try:
            converter.convert_json_to_label(copied)
        except (OSError, ValueError, KeyError, SystemExit) as error:
            raise PreparationError(_unreadable(path, error)) from None
        with Image.open(copied.replace('_polygons.json', '_labelTrainIds.png')) as image:
            return png(np.asarray(image))


def _unreadable(path: Path, error: BaseException) -> str:
    reason = ' '.join(str(error).split()).rstrip('.')
    return f'{path} cannot be read ({reason}). Unpack the archive again.'


def stock_or_none(wanted: bool | None):
    """MMSegmentation's converter if it is requested or available, otherwise None."""
    if wanted is False:
        return None
    if importlib.util.find_spec('cityscapesscripts') is None:
        if wanted:
            raise PreparationError(
                '--polygons needs cityscapesscripts, which is not installed. Run `pip install '
                'cityscapesscripts`, or give --ids.'
            )
        return None
    return stock_converter('cityscapes')


def convert(options: argparse.Namespace) -> str:
    """Convert the data set. All files are counted before the first one is written.

    Returns:
        str: The counts.

    Raises:
        PreparationError: If the source is not what it should be or a file would be overwritten.
    """
    root = options.root
    images = {}
    for split in OFFICIAL:
        folder = root / 'leftImg8bit' / split
        require_folder(folder, REMEDY)
        images[split] = sorted(folder.glob(f'*/*{IMAGE}'))
    counts = {split: len(found) for split, found in images.items()}
    check_counts(root, counts, OFFICIAL, options.partial)

    converter = stock_or_none(options.polygons)
    make = from_ids if converter is None else partial(from_polygons, converter)
    jobs = []
    for split, found in images.items():
        for image in found:
            place = root / 'gtFine' / split / image.parent.name / image.name.removesuffix(IMAGE)
            source = Path(f'{place}{IDS if converter is None else POLYGONS}')
            require_file(source, REMEDY)
            jobs.append((Path(f'{place}{TARGET}'), partial(make, source)))
    write_all(jobs, 'label images', options.overwrite, options.nproc)
    how = 'label ids' if converter is None else 'polygons'
    return f'{root}: ' + ', '.join(f'{n} {split}' for split, n in counts.items()) + f', from {how}'


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, metavar='ROOT')
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        '--ids', dest='polygons', action='store_false', default=None, help='read labelIds.png files'
    )
    source.add_argument('--polygons', action='store_true', default=None, help='draw the polygons')
    add_arguments(parser, partial='accept other counts than 2975 and 500')
    options = parser.parse_args(arguments)
    run_converter(parser, options, lambda: convert(options))


if __name__ == '__main__':
    main()
