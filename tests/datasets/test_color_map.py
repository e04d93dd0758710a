import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_semi.datasets.color_map import (
    VOID_NAMES,
    ColorMap,
    decode,
    parse_color_map,
    read_color_map,
)

COLOR = st.tuples(*[st.integers(0, 255)] * 3)
WORD = st.text('abcxyzäß-_()7', min_size=1, max_size=6).filter(
    lambda word: (not word.isdigit() and not word.isascii()) or word[0].isalpha()
)
NAME = st.lists(WORD, min_size=1, max_size=3).map(' '.join)
ENTRIES = st.dictionaries(NAME, COLOR, min_size=1, max_size=6).filter(
    lambda table: (
        len(set(table.values())) == len(table)
        and not any(name.lower() in VOID_NAMES for name in table)
    )
)
FORMATS = {
    'blanks': '{0} {1} {2} {3}',
    'csv': '{0},{1},{2},{3}',
    'semicolons': '{0}; {1}; {2}; {3}',
    'camvid': '{1} {2} {3}\t\t{0}',
    'quoted': '"{0}",{1},{2},{3}',
}


@given(ENTRIES, st.sampled_from(sorted(FORMATS)), st.sampled_from(['\n', '\r\n']), st.booleans())
def test_every_way_of_writing_gives_the_table(table, style, newline, heading):
    lines = [FORMATS[style].format(name, *color) for name, color in table.items()]
    if heading:
        lines = ['# classes', '', FORMATS[style].format('name', 'r', 'g', 'b'), *lines, '']
    expected = ColorMap(tuple(table), tuple(table.values()))
    assert parse_color_map(newline.join(lines), 'map.txt') == expected


@given(ENTRIES, st.booleans())
def test_json(table, as_list):
    content = table
    if as_list:
        content = [dict(name=name, color=color) for name, color in table.items()]
    expected = ColorMap(tuple(table), tuple(table.values()))
    assert parse_color_map(json.dumps(content), 'map.json', is_json=True) == expected


TEXT = st.one_of(
    st.text(max_size=60),
    st.text('ab 0123456789,;\t\n\r"#.-', max_size=60),
    st.lists(st.sampled_from(['road', '1', '2', '300', ' ', ',', '\n', '"', 'void', '-1'])).map(
        ''.join
    ),
)


def table_or_sentence(text, source, is_json):
    """The table, or None after a look at the error: one sentence that names the source."""
    try:
        return parse_color_map(text, source, is_json)
    except ValueError as error:
        sentence = str(error)
    assert sentence.startswith(f'{source} ')
    assert sentence.endswith('.')
    assert '\n' not in sentence
    return None


@given(TEXT, st.booleans())
def test_any_text_is_a_table_of_what_it_says_or_one_sentence(text, is_json):
    table = table_or_sentence(text, 'map.txt', is_json)
    if table is None:
        return
    assert len(table.classes) == len(table.palette) == len(set(table.classes)) > 0
    assert len({*table.palette, *table.void}) == len(table.palette) + len(table.void)
    for name, color in zip(table.classes, table.palette, strict=True):
        assert all(0 <= value <= 255 for value in color)
        # Nothing is made up: each line says name and color, and no line with a class is left out.
        assert is_json or all(word in text for word in name.split())
    rows = [row for row in text.replace('\r', '\n').split('\n') if row.strip()]
    rows = [row for row in rows if not row.lstrip().startswith('#')]
    assert is_json or len(rows) == len(table.classes) + len(table.void)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4), st.lists
    )
)
def test_any_json_is_a_table_or_one_sentence(content):
    for value in (content, dict(a=content), [dict(name='a', color=content)], [dict(name=content)]):
        table = table_or_sentence(json.dumps(value), 'map.json', True)
        if table is not None:
            assert table.classes == ('a',)
            assert list(table.palette[0]) == content


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', '0 classes'),
        ('road 128 64', "line 1 is 'road 128 64'. Write a name and three whole numbers"),
        ('road 128.0 64.0 128.0', 'three whole numbers'),
        ('0 road 128 64 128', 'no other column'),
        ('0 128 64 128', 'no other column'),
        ('road 1 2 3 4 5 6', None),
        ('road 1 2 256', 'from 0 to 255'),
        ('a 1 2 3\nb 1 2 3', "line 2 gives 'b' the color 1 2 3, which 'a' has already"),
        ('a 1 2 3\na 1 2 4', "names 'a' a second time"),
        ('void 1 2 3', '0 classes'),
        ('a 1 2 3\nname r g b', 'line 2'),
        ('a\x00 1 2 3', 'printable'),
    ],
)
def test_errors(text, said):
    if said is None:
        assert parse_color_map(text, 'map.txt').classes == ('road 1 2 3',)
        return
    with pytest.raises(ValueError, match=r'^map\.txt ') as caught:
        parse_color_map(text, 'map.txt')
    assert said in str(caught.value)


def test_void_takes_no_index(tmp_path):
    path = tmp_path / 'map.json'
    path.write_text('{"a": [0, 0, 1], "Void": [9, 9, 9], "b": [0, 1, 0], "ignore": [8, 8, 8]}')
    colors = read_color_map(path)
    assert colors == ColorMap(('a', 'b'), ((0, 0, 1), (0, 1, 0)), ((9, 9, 9), (8, 8, 8)))
    mask = np.array(
        [[[0, 0, 1], [9, 9, 9], [0, 1, 0]], [[8, 8, 8], [1, 0, 0], [1, 0, 0]]], np.uint8
    )
    label, unknown = decode(mask, colors)
    assert label.tolist() == [[0, 255, 1], [255, 255, 255]]
    assert unknown == {(1, 0, 0): 2}


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'does not exist. Give a \.json'):
        read_color_map(tmp_path / 'no.csv')
    (tmp_path / 'map.csv').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='is not text in UTF-8'):
        read_color_map(tmp_path / 'map.csv')
    (tmp_path / 'bom.csv').write_bytes('\ufeffroad,1,2,3'.encode())
    assert read_color_map(tmp_path / 'bom.csv').classes == ('road',)
    # Python refuses to read integers of thousands of digits.
    with pytest.raises(ValueError, match='is not JSON') as caught:
        parse_color_map('{"a": [' + '9' * 5000 + ', 1, 2]}', 'map.json', is_json=True)
    assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match='a key twice'):
        parse_color_map('{"a": [1, 2, 3], "a": [1, 2, 4]}', 'map.json', is_json=True)
