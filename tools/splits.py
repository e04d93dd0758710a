"""Make, import, identify and check partitions of a training set into labeled and unlabeled images.

    python tools/splits.py make data/own/img_dir/train data/own/splits --sizes 1/16 1/8 1/4 --seeds 0 1 2
    python tools/splits.py import UniMatch/splits/pascal/92 data/VOCdevkit/VOC2012/splits/classic/92
    python tools/splits.py identify data/VOCdevkit/VOC2012/splits/classic/92
    python tools/splits.py check --config CONFIG

A partition is a folder with labeled.txt and unlabeled.txt, which have one id per line. An id is the path of
an image relative to the image folder, without its ending. partition.json describes the source of the
partition.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mmseg_semi.cli import check_file, merge_options, one_sentence_errors, read_config
from mmseg_semi.compat import config_path
from mmseg_semi.datasets import UnlabeledDataset
from mmseg_semi.datasets.children import image_paths
from mmseg_semi.datasets.fingerprints import REGISTRY, identify, published
from mmseg_semi.datasets.labels import count_classes, survey_masks
from mmseg_semi.datasets.orientation import VIEWS
from mmseg_semi.datasets.report import Report
from mmseg_semi.datasets.split_check import (
    FRAMES,
    build_parts,
    check_parts,
    parts_of_config,
    relative_ids,
)
from mmseg_semi.datasets.split_lists import (
    FORMATS,
    IdList,
    check_writable,
    dataset_name,
    list_bytes,
    read_list,
)
from mmseg_semi.datasets.splits import (
    balanced_order,
    cut_order,
    labeled_count,
    order_free_hash,
    parse_size,
    random_order,
    size_name,
)
from mmseg_semi.self_training.output import make_folders, write_bytes

LABELED, UNLABELED, MANIFEST = 'labeled.txt', 'unlabeled.txt', 'partition.json'
BALANCED = ('masks', 'mask_suffix', 'num_classes', 'reduce_zero_label', 'min_pixels')


# ------------------------------------------------------------------------------------ make
def make(args: argparse.Namespace) -> None:
    ids, excluded = _exclude(_source_ids(args), args)
    if args.balanced:
        pixels = _class_pixels(ids, args)
        orders = {s: balanced_order(ids, pixels, s, args.min_pixels) for s in args.seeds}
    else:
        orders = {s: random_order(ids, s) for s in args.seeds}
    counts = {size: labeled_count(size, len(ids)) for size in map(parse_size, args.sizes)}
    partitions = {}
    for size, count in counts.items():
        for seed, order in orders.items():
            manifest = {
                'method': 'balanced' if args.balanced else 'random',
                'source': args.source,
                **_reading(args),
                **({'exclude': excluded} if excluded else {}),
                'images': len(ids),
                'sha256': order_free_hash(ids),
                'seed': seed,
                'size': str(size),
            }
            if args.balanced:
                manifest.update({name: getattr(args, name) for name in BALANCED})
            folder = Path(args.out) / size_name(size) / f'seed{seed}'
            partitions[folder] = (*cut_order(order, count), manifest)
    write_partitions(partitions, args.force)


def _source_ids(args: argparse.Namespace) -> list[str]:
    if not Path(args.source).is_dir():
        return _read(args.source, args).ids
    images = UnlabeledDataset(img_dir=args.source, img_suffix=args.img_suffix, serialize_data=False)
    paths = image_paths(images)
    for path in paths:
        # Datasets find an id by its ending in lower case or in capitals.
        if not path.endswith((*images.img_suffix, *map(str.upper, images.img_suffix))):
            raise ValueError(
                f'{path!r} has a suffix in mixed case, so that datasets cannot find it by its id. Rename it.'
            )
    ids = relative_ids(images, paths)
    for name, path in zip(ids, paths, strict=True):
        if name.lower().endswith(tuple(map(str.lower, images.img_suffix))):
            raise ValueError(
                f'{path!r} has two endings, so that its id {name!r} would be taken for a file name. Rename it.'
            )
    return [dataset_name(name) for name in ids]


def _exclude(ids: list[str], args: argparse.Namespace) -> tuple[list[str], list[dict]]:
    """The remaining ids, and the number of ids that each list of --exclude removed."""
    excluded = []
    for path in args.exclude:
        listed = _read(path, args).ids
        out = set(ids).intersection(listed)
        if not out:
            raise ValueError(
                f'{path} excludes nothing, since none of its {len(listed)} images, such as {listed[0]}, is one '
                f'of {args.source}, such as {ids[0] if ids else "none"}. Give a list with the same ids, or '
                'leave it out.'
            )
        ids = [name for name in ids if name not in out]
        print(f'{path}: {len(out)} of {len(listed)} listed images are left out')
        excluded.append({'list': path, 'images': len(out), 'sha256': order_free_hash(out)})
    return ids, excluded


def _reading(args: argparse.Namespace) -> dict:
    """How source and excluded lists are read, for the manifest."""
    reading = {'img_suffix': list(args.img_suffix)} if Path(args.source).is_dir() else {}
    if args.format != 'auto':
        reading['format'] = args.format
    if args.images is not None:
        reading['paths_begin_with'] = args.images
    return reading


def _class_pixels(ids: list[str], args: argparse.Namespace):
    if args.masks is None or args.num_classes is None:
        raise ValueError(
            '--balanced counts the pixels of classes. Give --masks, the folder of the masks, and --num-classes.'
        )
    survey = survey_masks([f'{args.masks}/{name}{args.mask_suffix}' for name in ids])
    if survey.problems:
        raise ValueError(next(iter(survey.problems.values())))
    counts = count_classes(survey.pixels, args.num_classes, args.reduce_zero_label)
    if counts.beyond.any():
        path = survey.paths[int(counts.beyond.argmax())]
        raise ValueError(
            f'{path} has values that are none of {args.num_classes} classes. Correct --num-classes, or give '
            '--reduce-zero-label if the labels count from 1.'
        )
    return counts.pixels


# ------------------------------------------------------------------------------------ import
def import_lists(args: argparse.Namespace) -> None:
    source = Path(args.source)
    labeled_path = source / LABELED if source.is_dir() else source
    labeled = _read(labeled_path, args)
    unlabeled, origin = _unlabeled(source, labeled_path, labeled, args)
    both = sorted(set(labeled.ids) & set(unlabeled))
    if both:
        raise ValueError(
            f'{len(both)} images are in {labeled_path} and in {origin}, the first is {both[0]}. Give the two '
            'lists of one partition.'
        )
    manifest = {
        'method': 'imported',
        'source': str(labeled_path),
        'unlabeled_source': origin,
        'identity': identify(labeled.ids).sentence(),
    }
    write_partitions({Path(args.out): (labeled.ids, unlabeled, manifest)}, args.force)
    _print_identity(str(labeled_path), labeled)


def _unlabeled(source: Path, labeled_path: Path, labeled: IdList, args) -> tuple[list[str], str]:
    """The unlabeled ids and their source."""
    if args.labeled_only:
        return [], ''
    if args.rest_of is not None:
        everything = _same_dataset(args.rest_of, labeled, args)
        unknown = sorted(set(labeled.ids).difference(everything.ids))
        if unknown:
            raise ValueError(
                f'{len(unknown)} labeled images are not in {args.rest_of}, the first is {unknown[0]}. Give '
                'the list that the labeled one is a part of.'
            )
        known = set(labeled.ids)
        return [name for name in everything.ids if name not in known], args.rest_of
    path = args.unlabeled and Path(args.unlabeled)
    if path is None:
        name = (
            UNLABELED if source.is_dir() else labeled_path.name.replace('labeled', UNLABELED[:-4])
        )
        path = labeled_path.with_name(name)
        if path == labeled_path or not path.is_file():
            raise FileNotFoundError(
                f'{labeled_path} has no unlabeled list beside it. Give it by --unlabeled, the list of all '
                'images by --rest-of, or say --labeled-only.'
            )
    return _same_dataset(path, labeled, args).ids, str(path)


def _same_dataset(path, labeled: IdList, args) -> IdList:
    other = _read(path, args)
    pairs = ((other.dataset, labeled.dataset), (other.split, labeled.split))
    if any(one and two and one != two for one, two in pairs):
        theirs, ours = (f'{of.dataset} {of.split}'.strip() for of in (other, labeled))
        raise ValueError(
            f'{path} lists {theirs} images, but the labeled list {ours}. Give the two lists of one partition.'
        )
    return other


def _read(path, args: argparse.Namespace) -> IdList:
    kind = args.format
    if kind == 'auto' and args.images is None and Path(path).with_name(MANIFEST).is_file():
        kind = 'ids'  # written by this tool, maybe with spaces and commas in names
    return read_list(str(path), kind, args.images)


# ------------------------------------------------------------------------------------ what is written
def write_partitions(partitions: dict, force: bool) -> None:
    """Write folders of lists; nothing at all if one of them holds another partition.

    Args:
        partitions: folder = labeled ids, unlabeled ids (none: no list), manifest.
        force: replaces what is there.

    Raises:
        ValueError: a folder holds another partition or another manifest, or an id is none that a list can hold.
    """
    contents, stale = {}, []
    for folder, (labeled, unlabeled, manifest) in partitions.items():
        lists = {LABELED: labeled, **({UNLABELED: unlabeled} if unlabeled else {})}
        manifest = {
            **manifest,
            'lists': {
                n: {'images': len(i), 'sha256': order_free_hash(i)} for n, i in lists.items()
            },
        }
        for listed in lists.values():
            check_writable(listed)
        texts = {name: list_bytes(ids) for name, ids in lists.items()}
        texts[MANIFEST] = (json.dumps(manifest, indent=1) + '\n').encode()
        contents[folder] = texts
        if UNLABELED not in texts and (folder / UNLABELED).exists():
            stale.append(folder / UNLABELED)
        for path, text in ((folder / name, text) for name, text in texts.items()):
            # Lists are compared first, because a difference in them is a better explanation than one in
            # manifests.
            if not force and path.exists() and path.read_bytes() != text:
                raise ValueError(_another(path, manifest))
            if not force and stale:
                raise ValueError(_another(stale[0], manifest))
    for path in stale:
        path.unlink()
    for folder, texts in contents.items():
        same = all(
            (folder / n).exists() and (folder / n).read_bytes() == t for n, t in texts.items()
        )
        if not same:
            make_folders([str(folder / MANIFEST)])
            for name, content in texts.items():
                write_bytes(str(folder / name), content)
        lists = (text for name, text in texts.items() if name != MANIFEST)
        counts = ' + '.join(str(text.count(b'\n')) for text in lists)
        print(f'{folder}: {counts} images{", the same as before" if same else ""}')


def _another(path: Path, manifest: dict) -> str:
    """The error message for a file with other contents."""
    what = 'another list' if path.name != MANIFEST else _difference(path, manifest)
    return f'{path} holds {what}. Give --force to replace it, or another folder.'


def _difference(path: Path, manifest: dict) -> str:
    """The first difference of a manifest, or a description of a file that is none."""
    try:
        old = json.loads(path.read_bytes())
    except ValueError:
        old = None
    if not isinstance(old, dict) or 'lists' not in old:
        return 'no manifest of a partition'
    for key in {**old, **manifest}:
        if old.get(key) != manifest.get(key):
            return f'{key}={old.get(key)!r}, and this partition has {key}={manifest.get(key)!r}'
    return 'the manifest of this partition in another form'


# ------------------------------------------------------------------------------------ identify
def identify_lists(args: argparse.Namespace) -> None:
    for source in args.lists:
        path = Path(source) / LABELED if Path(source).is_dir() else source
        _print_identity(str(path), _read(path, args), args.registry)


def _print_identity(path: str, content: IdList, registry: str = REGISTRY) -> None:
    identity = identify(content.ids, published(registry))
    print(f'{path}: {identity.count} images: {identity.sentence()}')
    for rival in identity.rivals:
        print(f'  not to be taken for: {rival}')


# ------------------------------------------------------------------------------------ check
def check(args: argparse.Namespace) -> int:
    report = Report()
    init_default_scope('mmseg')
    configs = _configs_of_arguments(args) if args.config is None else _configs_of_config(args)
    called = True if args.labeled is not None and args.unlabeled is not None else None
    check_parts(build_parts(configs, report), report, args.frames, partition=called)
    print('\n'.join(report.lines()))
    return 1 if report.problems else 0


def _configs_of_config(args: argparse.Namespace) -> dict:
    path = str(config_path(args.config)) if '::' in args.config else args.config
    check_file(path, 'config', '.py')
    cfg = read_config(path)
    merge_options(cfg, args.cfg_options)
    return parts_of_config(cfg)


def _configs_of_arguments(args: argparse.Namespace) -> dict:
    """Configs of the datasets that the arguments name."""
    if args.images is None:
        raise ValueError(
            'There is nothing to check. Give --config, or --images and the lists, if there are any.'
        )
    load = [dict(type='LoadImageFromFile')]

    def masked(ann_file, images, masks):
        if masks is None:
            return unmasked(ann_file, images)
        if args.num_classes is None:
            raise ValueError(
                'The values of the masks need the number of classes. Give --num-classes.'
            )
        classes = [f'class {c}' for c in range(args.num_classes)]
        return dict(
            type='BaseSegDataset',
            ann_file=ann_file or '',
            data_prefix=dict(img_path=images, seg_map_path=masks),
            img_suffix=args.img_suffix,
            seg_map_suffix=args.mask_suffix,
            reduce_zero_label=args.reduce_zero_label,
            metainfo=dict(classes=classes),
            serialize_data=False,  # not worth the time for one pass
            pipeline=[*load, dict(type='LoadAnnotations', drawn_on=args.drawn_on)],
        )

    def unmasked(ann_file, images):
        return dict(
            type='UnlabeledDataset',
            img_dir=images,
            ann_file=ann_file or '',
            img_suffix=args.img_suffix,
            serialize_data=False,
            pipeline=load,
        )

    parts = {'labeled': masked(args.labeled, args.images, args.masks)}
    if args.unlabeled is not None or args.unlabeled_images is not None:
        parts['unlabeled'] = unmasked(args.unlabeled, args.unlabeled_images or args.images)
    if args.val is not None or args.val_images is not None:
        parts['validation'] = masked(
            args.val, args.val_images or args.images, args.val_masks or args.masks
        )
    return parts


# ------------------------------------------------------------------------------------ arguments
def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for add in (_add_make, _add_import, _add_identify, _add_check):
        add(commands)
    args = parser.parse_args(argv)
    _refuse_ignored(commands.choices[args.command], args)
    return args


def _refuse_ignored(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with an error if an argument would be ignored."""

    def refuse(names, why):
        given = [name for name in names if getattr(args, name) != parser.get_default(name)]
        if given:
            options = ', '.join(f'--{name.replace("_", "-")}' for name in given)
            parser.error(f'{options} would be ignored {why}')

    masks = ('num_classes', 'mask_suffix', 'reduce_zero_label')
    if args.command == 'make' and not args.balanced:
        refuse(('masks', *masks, 'min_pixels'), 'without --balanced. Give it, or leave them out.')
    if args.command == 'make' and not Path(args.source).is_dir():
        refuse(('img_suffix',), f'since {args.source} is not a folder. Leave it out.')
    elif args.command == 'make' and not args.exclude:
        refuse(('format', 'images'), f'since {args.source} is a folder. Leave them out.')
    if args.command != 'check':
        return
    if args.config is not None:
        lists = ('labeled', 'unlabeled', 'val')
        folders = ('images', 'masks', 'unlabeled_images', 'val_images', 'val_masks')
        refuse(
            (*lists, *folders, 'img_suffix', *masks, 'drawn_on'),
            'with --config, which names them itself. Leave them out, or override it by --cfg-options.',
        )
    else:
        refuse(('cfg_options',), 'without --config. Give it, or leave them out.')
        if args.val is None and args.val_images is None:
            refuse(('val_masks',), 'without validation images. Give --val or --val-images.')
        if args.masks is None and args.val_masks is None:
            refuse((*masks, 'drawn_on'), 'without masks. Give --masks.')


def _add_make(commands) -> None:
    parser = commands.add_parser(
        'make',
        help='draw nested partitions of a list or a folder',
        description='Draw partitions of a list or a folder of images into OUT/SIZE/seedN. The labeled lists '
        'of one seed are nested: the smaller ones are contained in the larger ones. The same arguments give '
        'the same lists on every machine; lists that differ are never replaced without --force.',
    )
    parser.add_argument(
        'source',
        help='folder of images, searched with its subfolders, or a list in any known format',
    )
    parser.add_argument('out', help='folder of the partitions')
    parser.add_argument(
        '--sizes',
        nargs='+',
        required=True,
        metavar='SIZE',
        help='labeled share (1/8 or 0.125) or number of labeled images (92); several make several partitions',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=_seed,
        default=[0],
        help='seeds; each gives one partition per size (default: 0)',
    )
    parser.add_argument(
        '--exclude',
        nargs='+',
        default=[],
        metavar='LIST',
        help='images to exclude, such as validation images',
    )
    parser.add_argument(
        '--balanced',
        action='store_true',
        help='in the shuffled list, always choose an image of the class that is in the fewest chosen images '
        '(default: the order of the shuffled list); needs masks of all images',
    )
    parser.add_argument(
        '--min-pixels',
        type=_positive,
        default=1,
        help='minimum pixels of a class for it to be in an image (default: 1)',
    )
    parser.add_argument('--force', action='store_true', help='replace lists that differ')
    _add_mask_arguments(parser)
    parser.add_argument(
        '--img-suffix',
        nargs='+',
        default=['.jpg', '.jpeg', '.png'],
        help='ending(s) of images in a folder (default: .jpg .jpeg .png)',
    )
    _add_list_arguments(parser)


def _add_import(commands) -> None:
    parser = commands.add_parser(
        'import',
        help='convert the lists of another project',
        description='Convert the lists of UniMatch, U2PL, CPS or ST++, in their order, and print which '
        'published partition they are.',
    )
    parser.add_argument(
        'source', help='folder with labeled.txt and unlabeled.txt, or the labeled list alone'
    )
    parser.add_argument('out', help='folder of the partition')
    half = parser.add_mutually_exclusive_group()
    half.add_argument(
        '--unlabeled',
        metavar='LIST',
        help="the unlabeled list (default: SOURCE with 'unlabeled' instead of 'labeled' in its name)",
    )
    half.add_argument(
        '--rest-of',
        metavar='LIST',
        help='list of all images; all that are not in the labeled list are unlabeled',
    )
    half.add_argument('--labeled-only', action='store_true', help='write no unlabeled list')
    parser.add_argument('--force', action='store_true', help='replace lists that differ')
    _add_list_arguments(parser)


def _add_identify(commands) -> None:
    parser = commands.add_parser(
        'identify',
        help='find the published partition that a list is equal to',
        description='Compare labeled lists with the published lists, in any format and order. Also print '
        'the other published lists of the same size.',
    )
    parser.add_argument(
        'lists', nargs='+', metavar='LIST', help='labeled list, or folder of a partition'
    )
    parser.add_argument(
        '--registry',
        default=REGISTRY,
        metavar='FILE',
        help="file of tools/make_fingerprints.py (default: the package's)",
    )
    _add_list_arguments(parser)


def _add_check(commands) -> None:
    parser = commands.add_parser(
        'check',
        help='check a partition for errors',
        description='Check that labeled, unlabeled and validation images are disjoint, that all files can be '
        'read and all labels are within range. Print the classes of the labeled images. Warn of neighboring '
        'frames of a video. The exit code is 1 for errors and 0 for warnings.',
    )
    parser.add_argument('--config', help='config of a training, instead of the arguments below')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--labeled', metavar='LIST', help='labeled ids (default: all of --images)')
    parser.add_argument('--unlabeled', metavar='LIST', help='unlabeled ids')
    parser.add_argument('--val', metavar='LIST', help='validation ids')
    parser.add_argument('--images', metavar='DIR', help='folder of images')
    parser.add_argument(
        '--unlabeled-images', metavar='DIR', help='folder of unlabeled images (default: --images)'
    )
    parser.add_argument(
        '--val-images', metavar='DIR', help='folder of validation images (default: --images)'
    )
    parser.add_argument(
        '--val-masks', metavar='DIR', help='folder of validation masks (default: --masks)'
    )
    parser.add_argument('--img-suffix', default='.jpg', help='ending of the images (default: .jpg)')
    _add_mask_arguments(parser)
    parser.add_argument(
        '--drawn-on',
        choices=VIEWS,
        help='orientation of masks whose image has an EXIF orientation, if the sizes do not show it',
    )
    parser.add_argument(
        '--frames',
        type=int,
        default=FRAMES,
        help='maximum difference of the numbers in the names of neighboring frames; 0 if the images are not '
        f'a video (default: {FRAMES})',
    )


def _add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--masks', metavar='DIR', help='folder of masks')
    parser.add_argument('--mask-suffix', default='.png', help='ending of the masks (default: .png)')
    parser.add_argument('--num-classes', type=_positive, help='classes of the masks; 255 is void')
    parser.add_argument(
        '--reduce-zero-label',
        action='store_true',
        help='in the masks, 0 is void and classes start at 1',
    )


def _add_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--format',
        choices=['auto', *FORMATS],
        default='auto',
        help="format of the lists (default: auto; 'ids' next to a partition.json)",
    )
    parser.add_argument(
        '--images',
        metavar='DIR',
        help='prefix of the paths in the lists, to be removed (default: those of VOC and Cityscapes)',
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 0')
    return int(text)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    commands = {'make': make, 'import': import_lists, 'identify': identify_lists, 'check': check}
    with one_sentence_errors():
        sys.exit(commands[args.command](args))


if __name__ == '__main__':
    main()
