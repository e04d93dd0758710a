"""Parse the list formats of the literature into the ids that this package uses.

- UniMatch and ST++: ``JPEGImages/NAME.jpg SegmentationClass/NAME.png`` for VOC, for Cityscapes
  ``leftImg8bit/train/CITY/NAME_leftImg8bit.png gtFine/train/CITY/NAME_gtFine_labelTrainIds.png``.
- U2PL: ``NAME``; ``leftImg8bit/train/CITY/NAME_leftImg8bit.png``.
- CPS: ``NAME``; ``/images/train/NAME.png``, a tab and ``/segmentation/train/NAME_gtFine.png``.

The format of this package, ``ids``, has one id per line: the image path relative to the image folder, without
its ending. That is ``NAME`` for VOC and ``CITY/NAME`` for Cityscapes.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .backends import read_bytes

FORMATS = ('unimatch', 'u2pl', 'cps', 'stpp', 'ids')
_ENDING = re.compile(r'\.(?:jpe?g|png|bmp|tiff?|webp)$', re.IGNORECASE)
_VOC_PATH = re.compile(r'(?:.*/)?JPEGImages/(?P<name>[^/]+)\.jpg', re.IGNORECASE)
_CITYSCAPES_PATH = re.compile(
    r'(?:.*/)?leftImg8bit/(?P<split>[^/]+)/(?P<city>[^/]+)/(?P<name>(?P=city)_[^/ ]+)_leftImg8bit\.png'
)
_CPS_PATH = re.compile(
    r'(?:.*/)?images/(?P<split>train|val|test)/(?P<name>(?P<city>[a-z-]+)_\d{6}_\d{6})\.png'
)
_VOC_NAME = re.compile(r'20\d\d_\d{6}', re.ASCII)
_FOREIGN = re.compile(r'[,;|"<>{}]')
_CITYSCAPES_NAME = re.compile(r'(?P<city>[a-z-]+)/(?P=city)_\d{6}_\d{6}', re.ASCII)


class ListError(ValueError):
    """A problem of a list, its place and its remedy, in one sentence."""


class IdList(NamedTuple):
    """Content of a list.

    Attributes:
        ids (list[str]): Ids in list order, without duplicates, relative to the image folder, without ending.
        formats (tuple[str, ...]): Possible formats of :data:`FORMATS`; empty for another kind of list.
        dataset (str): 'voc12', 'cityscapes', or '' if the lines do not tell.
        split (str): Folder below ``leftImg8bit`` ('train', 'val'), if the lines tell.
    """

    ids: list[str]
    formats: tuple[str, ...]
    dataset: str
    split: str


class _Layout(NamedTuple):
    """Layout of a line; all lines of a list have the same layout."""

    form: str  # a key of `forms` below
    separator: str = ''  # between image and mask
    split: str = ''

    def __str__(self) -> str:
        forms = {
            'voc': 'a path with JPEGImages/',
            'cityscapes': f'a path with leftImg8bit/{self.split}/',
            'cps': f'a path of Cityscapes with images/{self.split}/',
            'below images': 'a path below --images',
            'file': 'a file name',
            'id': 'a bare id',
        }
        mask = {'': '', '\t': ', a tab and a mask', ' ': ', a space and a mask'}
        return forms[self.form] + mask[self.separator]


_FORMATS_OF = {
    ('voc', ' '): ('unimatch', 'stpp'),
    ('cityscapes', ' '): ('unimatch', 'stpp'),
    ('cityscapes', ''): ('u2pl',),
    ('cps', '\t'): ('cps',),
    ('file', ''): ('ids',),
    ('below images', ''): ('ids',),
    ('id', ''): ('u2pl', 'cps', 'ids'),
}


def read_list(path: str, kind: str = 'auto', images: str | None = None) -> IdList:
    """Read a list file, see :func:`parse_list`.

    Raises:
        FileNotFoundError: The file does not exist.
        ListError: The file is not a list of images, or not of this kind.
    """
    try:
        content = read_bytes(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f'{path} is not a file. Give a list of images.') from None
    return parse_list(content, str(path), kind, images)


def parse_list(
    content: bytes, source: str, kind: str = 'auto', images: str | None = None
) -> IdList:
    """Convert a list of another project to ids.

    Accepted are UTF-8 with or without a byte order mark, line ends of any system, a missing last line end,
    blank lines, spaces around a line, backslashes, leading slashes, and other folders before the known ones.
    Ambiguous lines are refused.

    Args:
        content: Content of the file.
        source: Name of the file for error messages.
        kind: One of :data:`FORMATS`, or 'auto' to detect the format.
        images: Path prefix to remove, such as 'img_dir/train'; None if each line is an id, a file name without
            folder, or a path of VOC or Cityscapes.

    Raises:
        ListError: The list is invalid; the message has the source, the line, its text and the remedy.
        ValueError: ``kind`` is unknown.
    """
    if kind not in (*FORMATS, 'auto'):
        raise ValueError(f"kind='{kind}' is unknown. Choose 'auto' or one of {FORMATS}.")
    prefix = None if images is None else _clean(f'{images or "."}/').removeprefix('./')
    first: tuple[int, _Layout] | None = None
    lines: dict[str, int] = {}
    for number, line in _lines(content, source):

        def wrong(why: str, number=number, line=line) -> ListError:
            shown = repr(line) if len(line) <= 160 else repr(line[:150]) + '...'
            return ListError(f'{source} line {number} is {shown}, {why}.')

        layout, name = _read_line(line, kind, prefix, wrong)
        if first is None:
            first = (number, layout)
        elif layout != first[1]:
            raise wrong(
                f'{layout}, and line {first[0]} is {first[1]}. Write all lines of a list in one way'
            )
        if name in lines:
            raise wrong(f'the image of line {lines[name]} again. List every image once')
        lines[name] = number
    if first is None:
        raise ListError(
            f'{source} has no line with an image (some lists were published empty). Take the list from another '
            'source, or leave it out.'
        )
    layout = first[1]
    formats = _FORMATS_OF.get((layout.form, layout.separator), ())
    if kind != 'auto' and kind not in formats:
        known = f'that of {" or ".join(formats)}' if formats else 'another one'
        raise ListError(
            f'{source} line {first[0]} is {layout}, which is not the format {kind} but {known}. Give that '
            'format, or leave it out.'
        )
    ids = list(lines)
    return IdList(ids, formats, _dataset(layout, ids), layout.split)


def _lines(content: bytes, source: str) -> Iterator[tuple[int, str]]:
    """Yield numbers and texts of the lines that are not blank."""
    text = _text(content, source)
    for number, line in enumerate(text.replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1):
        text = line.replace('\t', ' ')
        if not text.isprintable():
            bad = next(c for c in text if not c.isprintable())
            raise ListError(
                f'{source} line {number} has the character {bad!a}, which no name of an image should have. '
                'Save the list as plain text without it.'
            )
        if line := line.strip(' \t'):
            yield number, line


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        raise ListError(
            f'{source} line {line} is not UTF-8 text. Save the list as plain text in UTF-8.'
        ) from None


def check_list_text(path: str, marked: bool) -> None:
    """Check that a dataset can read a list file as text.

    Args:
        path: Path of the list, which exists.
        marked: Whether the dataset accepts a byte order mark; mmseg's read it as part of the first name.

    Raises:
        ListError: The dataset cannot read the list.
    """
    with open(path, 'rb') as file:
        content = file.read()
    _text(content, path)
    if not marked and content.startswith(codecs.BOM_UTF8):
        raise ListError(
            f'{path} begins with a byte order mark, which would be an unseen part of the first name. '
            'Save the list as UTF-8 without it.'
        )


def check_writable(ids: Sequence[str]) -> None:
    """Check that a list of ``ids``, one per line, reads back as the same ids, here and in the datasets.

    Raises:
        ListError: An id would be read as another one, or not at all; the message has the first one.
    """
    try:
        whole = parse_list(list_bytes(ids), 'list', 'ids').ids == list(ids)
    except (ListError, UnicodeEncodeError):
        whole = False
    if whole or not ids:
        return
    for name in ids:
        try:
            read = parse_list(list_bytes([name]), 'list', 'ids').ids
        except (ListError, UnicodeEncodeError):
            read = []
        if read != [name]:
            what = f'would be read as {read[0]!r}' if read else 'could not be read again'
            raise ListError(
                f'The image {name!r} {what} from a list with one id per line. Rename it, in plain letters and '
                'with one ending.'
            )
    twice = Counter(ids).most_common(1)[0][0]
    raise ListError(f'The image {twice!r} is listed twice. List every image once.')


def list_bytes(ids: Iterable[str]) -> bytes:
    """Return the content of a list file: one id per line, UTF-8."""
    return ''.join(f'{name}\n' for name in ids).encode()


def _read_line(line: str, kind: str, prefix: str | None, wrong) -> tuple[_Layout, str]:
    """Return the layout of a line and its id."""
    if kind != 'ids' and _FOREIGN.search(line):
        raise wrong(
            'with a character that separates columns in other formats. Give one image per line, or an image '
            'and its mask with '
            "a space or a tab between; if it is part of a name, give format 'ids'"
        )
    image, separator, mask = _columns(line, kind, wrong)
    path = _clean(image)
    layout, name = _layout(path, prefix, separator, mask, wrong)
    if {'', '.', '..'} & set(name.split('/')) or name != name.strip():
        raise wrong('which is not an id or path of an image below its folder. Give one per line')
    if _ENDING.search(name):
        raise wrong('which has two endings of an image. Give the id, without any')
    if mask and not _is_mask_of(mask, name):
        raise wrong(
            f'whose mask {_base(mask)} does not have the name of its image. Correct the line, or list '
            'only images'
        )
    return layout, name


def _columns(line: str, kind: str, wrong) -> tuple[str, str, str]:
    """Return image, separator and mask; the latter two are '' for an image without a mask."""
    if '\t' in line:
        columns = [column.strip(' ') for column in line.split('\t')]
        if len(columns) != 2 or not all(map(_ENDING.search, columns)):
            raise wrong('which has tabs but is not an image, a tab and its mask. Give one of each')
        return columns[0], '\t', columns[1]
    if ' ' not in line or kind == 'ids':
        return line, '', ''
    gaps = [(line[: gap.start()], line[gap.end() :]) for gap in re.finditer(' +', line)]
    pairs = [pair for pair in gaps if all(map(_ENDING.search, pair))]
    if len(pairs) > 1:
        pairs = [(image, mask) for image, mask in pairs if _is_mask_of(mask, image)]
    if len(pairs) == 1:
        return pairs[0][0], ' ', pairs[0][1]
    raise wrong(
        'where it is unclear what a space separates. Give an image and its mask, or one image; if the space is '
        "part of its name, give format 'ids'"
    )


def _is_mask_of(mask: str, image: str) -> bool:
    """Whether a mask has its image's name, in any folder, with or without a suffix."""
    name = _ENDING.sub('', _base(image)).removesuffix('_leftImg8bit')
    stem = _ENDING.sub('', _base(mask))
    return stem == name or stem.startswith(f'{name}_')


def _base(path: str) -> str:
    return _clean(path).rpartition('/')[2]


def _layout(path: str, prefix: str | None, separator: str, mask: str, wrong) -> tuple[_Layout, str]:
    bare = _ENDING.sub('', path)
    if prefix is not None:
        if not path.startswith(prefix):
            raise wrong(f'which is not below {prefix} as --images says. Correct one of the two')
        return _Layout('below images', separator), dataset_name(bare[len(prefix) :])
    if found := _VOC_PATH.fullmatch(path):
        return _Layout('voc', separator), found['name']
    found, form = _CITYSCAPES_PATH.fullmatch(path), 'cityscapes'
    if not found and mask.endswith('_gtFine.png'):
        found, form = _CPS_PATH.fullmatch(path), 'cps'
    if found:
        return _Layout(form, separator, found['split']), f'{found["city"]}/{found["name"]}'
    if path.startswith('/') or re.match('[A-Za-z]:', path):
        raise wrong('an absolute path. Give with --images the folder that the ids are relative to')
    if bare == path:
        return _Layout('id', separator), dataset_name(path)
    if '/' in path:
        raise wrong(
            'a path of no known layout. Give with --images the folder that the ids are relative to'
        )
    return _Layout('file', separator), bare


def dataset_name(name: str) -> str:
    """Return the id that the datasets use: for Cityscapes without `_leftImg8bit`."""
    short = name.removesuffix('_leftImg8bit')
    return short if _CITYSCAPES_NAME.fullmatch(short) else name


def _clean(path: str) -> str:
    """Return the path with single forward slashes and without '.' parts."""
    path = re.sub('/+', '/', path.replace('\\', '/'))
    return re.sub(r'(?:(?<=/)|^)(?:\./)+', '', path)


def _dataset(layout: _Layout, ids: list[str]) -> str:
    if layout.form == 'voc':
        return 'voc12'
    if layout.form in ('cityscapes', 'cps'):
        return 'cityscapes'
    for dataset, pattern in (('voc12', _VOC_NAME), ('cityscapes', _CITYSCAPES_NAME)):
        if all(map(pattern.fullmatch, ids)):
            return dataset
    return ''
