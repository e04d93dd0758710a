"""The list formats of the literature: what they say, what is refused, and that nothing else can happen."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmseg_semi.datasets.split_lists import FORMATS, ListError, parse_list, read_list

LISTS = Path(
    os.environ.get('SPLITS_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'splits')
)
CITY, SCENE = 'aachen', 'aachen_000000_000019'


def parse(text, **kwargs):
    content = text if isinstance(text, bytes) else text.encode()
    return parse_list(content, 'the.txt', **kwargs)


# ------------------------------------------------------------------------------------ lines by hand


@pytest.mark.parametrize(
    ('line', 'name', 'formats', 'dataset'),
    [
        ('2007_000032', '2007_000032', ('u2pl', 'cps', 'ids'), 'voc12'),
        (
            'JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png',
            '2007_000032',
            ('unimatch', 'stpp'),
            'voc12',
        ),
        (
            f'leftImg8bit/train/{CITY}/{SCENE}_leftImg8bit.png '
            f'gtFine/train/{CITY}/{SCENE}_gtFine_labelTrainIds.png',
            f'{CITY}/{SCENE}',
            ('unimatch', 'stpp'),
            'cityscapes',
        ),
        (
            f'leftImg8bit/train/{CITY}/{SCENE}_leftImg8bit.png',
            f'{CITY}/{SCENE}',
            ('u2pl',),
            'cityscapes',
        ),
        (
            f'/images/train/{SCENE}.png\t/segmentation/train/{SCENE}_gtFine.png',
            f'{CITY}/{SCENE}',
            ('cps',),
            'cityscapes',
        ),
        (f'{CITY}/{SCENE}', f'{CITY}/{SCENE}', ('u2pl', 'cps', 'ids'), 'cityscapes'),
        (f'{CITY}/{SCENE}_leftImg8bit', f'{CITY}/{SCENE}', ('u2pl', 'cps', 'ids'), 'cityscapes'),
        ('own_7.JPEG', 'own_7', ('ids',), ''),
        ('sub/own_7', 'sub/own_7', ('u2pl', 'cps', 'ids'), ''),
        ('v1.2_a', 'v1.2_a', ('u2pl', 'cps', 'ids'), ''),
        ('a.jpg  a.png', 'a', (), ''),
        ('a.jpg\ta_mask.png', 'a', (), ''),
        ('/data/VOC2012/JPEGImages/a.jpg', 'a', (), 'voc12'),
        ('/JPEGImages/a.jpg /SegmentationClass/a.png', 'a', ('unimatch', 'stpp'), 'voc12'),
        (
            r'C:\VOC\JPEGImages\a.jpg C:\VOC\SegmentationClass\a.png',
            'a',
            ('unimatch', 'stpp'),
            'voc12',
        ),
        (
            'JPEGImages/my a.jpg SegmentationClass/my a.png',
            'my a',
            ('unimatch', 'stpp'),
            'voc12',
        ),
        ('./a//b', 'a/b', ('u2pl', 'cps', 'ids'), ''),
    ],
)
def test_line(line, name, formats, dataset):
    content = parse(line)
    assert content.ids == [name]
    assert content.formats == formats
    assert content.dataset == dataset


@pytest.mark.parametrize(
    'text',
    [
        'a\nb/c\nd',
        'a\r\nb/c\r\nd\r\n',
        'a\rb/c\rd',
        '\ufeffa\nb/c\nd\n',
        '\n\n a \n\t\nb/c\t\n  d',
        'a\nb\\c\nd\n\n',
    ],
)
def test_line_ends_marks_and_blanks(text):
    assert parse(text).ids == ['a', 'b/c', 'd']


def test_what_paths_begin_with_can_be_said():
    lines = 'img/x/a 1.jpg msk/x/a 1.png\nimg/b.png msk/b_gt.png'
    for images in ('img', 'img/', './img', '/img'):
        text = lines.replace('img/', '/img/') if images == '/img' else lines
        assert parse(text, images=images).ids == ['x/a 1', 'b']
    assert parse('x/a.jpg\nb.jpg', images='.').ids == ['x/a', 'b']
    assert parse('/x/a.jpg\n/b.jpg', images='/').ids == ['x/a', 'b']
    with pytest.raises(
        ListError, match=r"line 2 is 'other/b.jpg', which is not below img/ as --im"
    ):
        parse('img/a.jpg\nother/b.jpg', images='img')


def test_ids_may_hold_anything_if_said_so():
    assert parse('a b\nc,d\n"e"', kind='ids').ids == ['a b', 'c,d', '"e"']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'the.txt has no line with an image'),
        ('\ufeff\r\n \t\n', 'the.txt has no line with an image'),
        ('a\nb\na', "line 3 is 'a', the image of line 1 again"),
        ('a.jpg\nb.jpg\na.png', "line 3 is 'a.png', the image of line 1 again"),
        ('a b', "line 1 is 'a b', where it is unclear what a space separates"),
        ('2008_000008 -1', 'unclear what a space separates'),
        ('2008_000008 SegmentationClass/2008_000008.png', 'unclear what a space separates'),
        ('a.jpg b.jpg c.jpg', 'unclear what a space separates'),
        ('a.jpg b.png', 'whose mask b.png does not have the name of its image'),
        (
            'JPEGImages/a.jpg SegmentationClass/b.png',
            'whose mask b.png does not have the name of its image',
        ),
        ('a\tb', 'which has tabs but is not an image, a tab and its mask'),
        ('a.jpg\ta.png\ta.txt', 'which has tabs but is not an image, a tab and its mask'),
        ('a.jpg,a.png', 'a character that separates columns in other formats'),
        ('["a",', 'a character that separates columns in other formats'),
        ('/a', "line 1 is '/a', an absolute path"),
        (r'D:\a\b.jpg', 'an absolute path'),
        ('img/a.jpg', 'a path of no known layout'),
        ('images/train/my_000000_000001.png', 'a path of no known layout'),
        ('../a', 'not an id or path of an image below its folder'),
        ('a/../b', 'not an id or path of an image below its folder'),
        ('.jpg', 'not an id or path of an image below its folder'),
        ('a/', 'not an id or path of an image below its folder'),
        ('.', 'not an id or path of an image below its folder'),
        ('a.jpg.jpg', 'two endings of an image'),
        ('a\nJPEGImages/b.jpg', r'line 2 is .*, a path with JPEGImages/, and line 1 is a bare id'),
        ('a.jpg\nb', 'a bare id, and line 1 is a file name'),
        (
            f'leftImg8bit/train/{CITY}/{SCENE}_leftImg8bit.png\nleftImg8bit/val/{CITY}/{SCENE}_leftImg8bit.png',
            'line 2 is .*, a path with leftImg8bit/val/, and line 1 is a path with leftImg8bit/train/',
        ),
        (
            'a.jpg a.png\nb.jpg\tb.png',
            'a tab and a mask, and line 1 is a file name, a space and a mask',
        ),
        ('a\nb\x00', r"line 2 has the character '\\x00'"),
        ('a\u00a0b', r"line 1 has the character '\\xa0'"),
        ('a\u2028b', r"line 1 has the character '\\u2028'"),
        ('a\n\ufeffb', r"line 2 has the character '\\ufeff'"),
        (b'\xff\xfea\x00\n\x00', 'line 1 is not UTF-8 text'),
        (b'a\nb\n\xe9', 'line 3 is not UTF-8 text'),
    ],
)
def test_what_is_refused_is_said_in_one_sentence(text, message):
    with pytest.raises(ListError, match=message) as caught:
        parse(text)
    assert '\n' not in str(caught.value)
    assert str(caught.value).endswith('.')


def test_long_lines_are_shortened():
    with pytest.raises(ListError) as caught:
        parse('a b' * 10000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ('kind', 'line', 'fits'),
    [
        ('unimatch', 'JPEGImages/a.jpg SegmentationClass/a.png', True),
        ('stpp', 'JPEGImages/a.jpg SegmentationClass/a.png', True),
        ('u2pl', 'JPEGImages/a.jpg SegmentationClass/a.png', False),
        ('u2pl', '2007_000032', True),
        ('cps', '2007_000032', True),
        ('unimatch', '2007_000032', False),
        ('ids', '2007_000032', True),
        ('cps', f'leftImg8bit/train/{CITY}/{SCENE}_leftImg8bit.png', False),
        ('u2pl', f'/images/train/{SCENE}.png\t/segmentation/train/{SCENE}_gtFine.png', False),
    ],
)
def test_a_format_that_is_named_is_insisted_on(kind, line, fits):
    if fits:
        assert len(parse(line, kind=kind).ids) == 1
    else:
        with pytest.raises(ListError, match=f'line 1 is .*, which is not the format {kind} but'):
            parse(line, kind=kind)


def test_unknown_format_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="kind='voc' is unknown"):
        parse('a', kind='voc')
    for path in (tmp_path / 'gone.txt', tmp_path):
        with pytest.raises(FileNotFoundError, match=r'is not a file\. Give a list of images'):
            read_list(str(path))


# ------------------------------------------------------------------------------------ fuzzing

names = st.text(string.ascii_lowercase + string.digits + '_-', min_size=1, max_size=8)
scenes = st.builds(
    '{}_{:06d}_{:06d}'.format,
    st.sampled_from(['ulm', 'bad-honnef', 'aachen']),
    st.integers(0, 9**6),
    st.integers(0, 9**6),
)


def voc_pair(name):
    return f'JPEGImages/{name}.jpg SegmentationClass/{name}.png', name


def voc_path(name):
    return f'JPEGImages/{name}.jpg', name


def bare(name):
    return name, name


def cityscapes_pair(scene):
    city = scene.split('_')[0]
    image = f'leftImg8bit/train/{city}/{scene}_leftImg8bit.png'
    return f'{image} gtFine/train/{city}/{scene}_gtFine_labelTrainIds.png', f'{city}/{scene}'


def cityscapes_path(scene):
    line, name = cityscapes_pair(scene)
    return line.split()[0], name


def cps(scene):
    line = f'/images/train/{scene}.png\t/segmentation/train/{scene}_gtFine.png'
    return line, f'{scene.split("_")[0]}/{scene}'


WRITERS = {
    voc_pair: names,
    voc_path: names,
    bare: names,
    cityscapes_pair: scenes,
    cityscapes_path: scenes,
    cps: scenes,
}


@st.composite
def written(draw):
    """Bytes of a list, the ids that it means and its lines."""
    writer = draw(st.sampled_from(list(WRITERS)))
    pairs = [
        writer(x) for x in draw(st.lists(WRITERS[writer], min_size=1, max_size=6, unique=True))
    ]
    lines = [line for line, _ in pairs]
    if writer is not cps and draw(st.booleans()) and '/' in lines[0]:
        lead = draw(st.sampled_from(['/', './', 'data/', '/data/x/']))
        lines = [lead + line for line in lines]
    if draw(st.booleans()):
        lines = [line.replace('/', '\\') for line in lines]
    end = draw(st.sampled_from(['\n', '\r\n', '\r']))
    around = st.sampled_from(['', ' ', '  ', '\t'])
    text = end.join(draw(around) + line + draw(around) for line in lines)
    text = draw(st.sampled_from(['', '\ufeff'])) + draw(st.sampled_from(['', end])) + text
    return (text + draw(st.sampled_from(['', end, end * 3]))).encode(), [i for _, i in pairs], lines


def outcome(content, *args):
    """The list, or the sentence that refuses it; any other error is a failure."""
    try:
        return parse_list(content, 'the.txt', *args), ''
    except ListError as error:
        return None, str(error)


@given(written())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_known_list_means_its_ids(case):
    content, ids, _ = case
    assert parse_list(content, 'the.txt').ids == ids


@given(written(), written(), st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_line_too_much_is_found(case, other, data):
    """A line that is there twice, or one of another format, is refused by its number."""
    _, ids, lines = case
    at = data.draw(st.integers(0, len(lines)))
    foreign = data.draw(st.sampled_from([lines[0], other[2][0]]))
    lines = [*lines[:at], foreign, *lines[at:]]
    found, refusal = outcome('\n'.join(lines).encode())
    if refusal:
        assert refusal.startswith('the.txt line ')
    else:
        assert len(found.ids) == len(ids) + 1  # another image in the same format
        assert set(ids) < set(found.ids)


pieces = st.sampled_from(
    [
        *('a', 'b', '2007_000032', SCENE, '/', '\\', '.', '..', ' ', '\t', '\n', '\r', ',', '"'),
        *('.jpg', '.png', 'JPEGImages/', 'leftImg8bit/train/aachen/', '_leftImg8bit.png'),
        *('SegmentationClass/', '/images/train/', '_gtFine.png', '\ufeff', '\x00', 'é', '\u2028'),
    ]
)
images_options = st.sampled_from(
    [None, None, '', '.', '/', 'a', 'JPEGImages', '/images/train/', '..']
)


@given(
    st.lists(pieces, max_size=14).map(lambda p: ''.join(p).encode()) | st.binary(max_size=40),
    st.sampled_from([*FORMATS, 'auto', 'auto', 'auto']),
    images_options,
)
@settings(max_examples=400, deadline=None, derandomize=True)
@example(b'a.jpg\xc2\xa0a.png', 'auto', None)
def test_anything_else_is_a_list_of_ids_or_one_sentence(content, kind, images):
    found, refusal = outcome(content, kind, images)
    if refusal:
        assert '\n' not in refusal
        assert refusal.startswith('the.txt')
        return
    assert found.ids
    assert len(set(found.ids)) == len(found.ids)
    for name in found.ids:
        assert name == name.strip()
        assert name.isprintable()
        assert '\\' not in name
        assert not {'', '.', '..'} & set(name.split('/'))
        assert not name.lower().endswith(('.jpg', '.png'))
    again = parse_list(''.join(f'{i}\n' for i in found.ids).encode(), 'the.txt', 'ids')
    assert again.ids == found.ids  # what we write is what we read


# ------------------------------------------------------------------------------------ the real lists


@pytest.fixture(scope='module')
def real():
    if not LISTS.is_dir():
        pytest.skip(f'no published lists at {LISTS}. Set SPLITS_ROOT')
    return {path.relative_to(LISTS).as_posix(): path for path in sorted(LISTS.rglob('*.txt'))}


@pytest.mark.slow
def test_every_published_list_is_read_whole(real):
    """As many ids as lines, each the words of its line that a simple rule finds; the empty one is refused."""
    for where, path in real.items():
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if not lines:
            with pytest.raises(ListError, match='has no line with an image'):
                read_list(str(path))
            continue
        content = read_list(str(path))
        publisher, dataset = where.split('/')[:2]
        assert publisher in content.formats
        assert content.dataset == {'pascal': 'voc12', 'cityscapes': 'cityscapes'}[dataset]
        stems = [Path(line.split()[0]).stem.removesuffix('_leftImg8bit') for line in lines]
        if dataset == 'cityscapes':
            stems = [f'{stem.split("_")[0]}/{stem}' for stem in stems]
        assert content.ids == stems
        assert content.split in ('', 'val' if path.stem == 'val' else 'train')


def test_one_list_in_several_formats_is_one_list(real):
    def ids(where):
        return set(read_list(str(real[where])).ids)

    assert ids('cps/cityscapes/train_aug_labeled_1-16.txt') == ids(
        'unimatch/cityscapes/1_16/labeled.txt'
    )
    assert ids('u2pl/pascal/662/labeled.txt') == ids('unimatch/pascal/u2pl_1_16/labeled.txt')
    assert ids('cps/pascal/pseudoseg_labeled_1-8.txt') == ids('stpp/pascal/183/split_0/labeled.txt')
