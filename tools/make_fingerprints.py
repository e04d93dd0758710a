"""Make the registry of published partitions from their lists, which are not part of this package.

ROOT contains one folder of lists for each repository that published lists. All lists in these places are used:

    unimatch/{pascal,cityscapes}/PARTITION/labeled.txt             LiheYoung/UniMatch, splits/
    u2pl/{pascal,cityscapes}/COUNT/labeled.txt                     Haochen-Wang409/U2PL, data/splits/
    cps/{pascal,cityscapes}/{train_aug,pseudoseg}_labeled_1-N.txt  charlesCXK/TorchSemiSeg, DATA/
    stpp/{pascal,cityscapes}/PARTITION[/split_K]/labeled.txt       LiheYoung/ST-PlusPlus, dataset/splits/

and also val.txt of each dataset and UniMatch's pascal/train_aug.txt, if they exist. The registry contains only
counts and hashes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mmseg_semi.cli import one_sentence_errors
from mmseg_semi.datasets.fingerprints import (
    REGISTRY,
    Published,
    describe,
    image_names,
    read_registry,
    registry_text,
)
from mmseg_semi.datasets.split_lists import read_list
from mmseg_semi.self_training.output import write_bytes

PUBLISHERS = {'unimatch': 'UniMatch', 'u2pl': 'U2PL', 'cps': 'CPS', 'stpp': 'ST++'}
DATASETS = {'pascal': 'voc12', 'cityscapes': 'cityscapes'}
# Pattern of a path below ROOT: the family of its labeled list. The first match is used.
FAMILIES = {
    # The 1464 images with VOC's own masks, and parts of them as PseudoSeg drew them.
    r'(unimatch|u2pl)/pascal/(92|183|366|732|1464)/': 'classic',
    r'stpp/pascal/(92|183|366|732)/split_0/|stpp/pascal/1\.4k/': 'classic',
    r'cps/pascal/pseudoseg_labeled_1-(16|8|4)\.': 'classic',
    r'cps/pascal/pseudoseg_': 'classic-cps',
    r'stpp/pascal/(92|183|366|732)/': 'classic-stpp',
    # Parts of all 10582 images.
    r'u2pl/pascal/|unimatch/pascal/u2pl_': 'blender-u2pl',
    r'cps/pascal/|unimatch/pascal/': 'blender-cps',
    r'stpp/pascal/': 'blender-stpp',
    r'unimatch/cityscapes/1_30/': 'stpp',
    r'(cps|unimatch)/cityscapes/': 'cps',
    r'u2pl/cityscapes/': 'u2pl',
    r'stpp/cityscapes/': 'stpp',
}


def find_lists(root: Path) -> list[Published]:
    """One entry for each list below a folder. A list with several names has one entry.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a list is not of the dataset that its folder says.
    """
    found: dict[str, Published] = {}
    images: dict[str, set[str]] = {}
    for path in sorted(root.glob('*/*/**/*.txt')):
        where = path.relative_to(root).as_posix()
        publisher, folder = where.split('/')[:2]
        role, family = _role(path.name), _family(where)
        if publisher not in PUBLISHERS or folder not in DATASETS or role is None or family is None:
            continue
        if not path.stat().st_size:  # ST++ published some
            print(f'{path} is empty and left out.')
            continue
        content, dataset = read_list(str(path)), DATASETS[folder]
        if content.dataset != dataset:
            raise ValueError(
                f'{path} lists images of {content.dataset or "another dataset"} and not of {dataset}. Put it '
                'where it belongs.'
            )
        name = (family if role == 'labeled' else '', _name(where))
        entry = describe(dataset, role, [name], content.ids)
        if entry.sha256 in found:
            names = sorted((*found[entry.sha256].names, name))
            entry = entry._replace(names=tuple(names))
        found[entry.sha256], images[entry.sha256] = entry, set(image_names(content.ids))
    if not found:
        raise FileNotFoundError(
            f'{root} holds no list of {", ".join(PUBLISHERS)}. Put theirs there as --help shows it.'
        )
    return [
        entry._replace(
            common={
                sha: len(images[entry.sha256] & images[sha])
                for sha, other in sorted(found.items())
                if entry.is_rival(other)
            }
        )
        for entry in found.values()
    ]


def check_none_dropped(path: str, entries: list[Published]) -> None:
    """Check that a registry file has no list, and no name of one, that ``entries`` lack.

    Raises:
        ValueError: it has, or it is not a registry.
    """
    kept = {(entry.sha256, name) for entry in entries for name in entry.names}
    old = read_registry(Path(path).read_bytes(), path)
    dropped = [entry for entry in old if any((entry.sha256, n) not in kept for n in entry.names)]
    if dropped:
        raise ValueError(
            f'{path} has {len(dropped)} lists that would be lost, or a name of theirs, the first is '
            f'{dropped[0]}. Give a ROOT with all of them, another --out, or --drop.'
        )


def _role(name: str) -> str | None:
    if 'unlabeled' in name:
        return None
    if 'labeled' in name:
        return 'labeled'
    return {'val.txt': 'val', 'train_aug.txt': 'train'}.get(name)


def _family(where: str) -> str | None:
    return next((family for pattern, family in FAMILIES.items() if re.match(pattern, where)), None)


def _name(where: str) -> str:
    """Publisher and name of a list: 'U2PL 662' for u2pl/pascal/662/labeled.txt."""
    publisher, _, *rest = where.split('/')
    partition = '/'.join(rest).removesuffix('.txt').removesuffix('/labeled')
    return f'{PUBLISHERS[publisher]} {partition}'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, metavar='ROOT', help='folder with the lists, see above')
    parser.add_argument(
        '--out', default=REGISTRY, metavar='FILE', help="the registry (default: the package's own)"
    )
    parser.add_argument(
        '--drop',
        action='store_true',
        help='remove lists that are in FILE but not in ROOT, instead of stopping',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        entries = find_lists(args.root)
        if not args.drop and Path(args.out).exists():
            check_none_dropped(args.out, entries)
        write_bytes(args.out, registry_text(entries).encode())
    names = sum(len(entry.names) for entry in entries)
    print(f'{args.out}: {len(entries)} lists under {names} names.')


if __name__ == '__main__':
    main()
