"""Each method has a page in docs with the same headings and its settings as tools/settings.py prints them."""

import re
from pathlib import Path

import pytest
from mmseg.registry import MODELS

from mmseg_semi.models import SemiSegmentor

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = ['Idea', 'When to choose it', 'Config', 'Settings', 'Cost and results']


def methods():
    """All registered methods of the package, by name."""
    return {
        name: cls
        for name, cls in sorted(MODELS.module_dict.items())
        if isinstance(cls, type)
        and issubclass(cls, SemiSegmentor)
        and cls.__module__.startswith('mmseg_semi.')
    }


def pages_of(method):
    """The pages whose settings are the method's, as paths and texts."""
    texts = {path: path.read_text(encoding='utf-8') for path in (ROOT / 'docs').glob('*.md')}
    return {path: text for path, text in texts.items() if f'<!-- settings: {method} -->' in text}


def test_all_methods_are_looked_at():
    assert set(methods()) >= {
        *('CPS', 'CutMixSeg', 'DeS4', 'ESL', 'FixMatch', 'GPS', 'IMAS', 'MeanTeacher', 'U2PL'),
        *('UniMatch', 'UniMatchV2'),
    }


@pytest.mark.parametrize('method', methods())
def test_a_method_has_one_page_with_the_headings_of_all(method):
    pages = pages_of(method)
    assert len(pages) == 1, f'{method} has the pages {sorted(pages)}'
    (text,) = pages.values()
    assert re.findall(r'^## (.*)$', text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize('method', methods())
def test_the_page_has_the_settings_as_the_tool_prints_them(method):
    (text,) = pages_of(method).values()
    _, table = text.split(f'<!-- settings: {method} -->\n')
    table = table.split('\n<!-- end of settings -->')[0]
    remedy = f'Paste what `python tools/settings.py {method}` prints.'
    assert table.splitlines() == methods()[method].Settings.table().splitlines(), remedy


@pytest.mark.parametrize('method', methods())
def test_the_overview_links_the_page(method):
    (page,) = pages_of(method)
    assert f']({page.name})' in (ROOT / 'docs' / 'methods.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('page', sorted(path.name for path in (ROOT / 'docs').glob('*.md')))
def test_a_page_links_files_and_headings_that_exist(page):
    text = _without_code((ROOT / 'docs' / page).read_text(encoding='utf-8'))
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' in target:
            continue
        file, _, anchor = target.partition('#')
        path = (ROOT / 'docs' / file).resolve() if file else ROOT / 'docs' / page
        assert path.exists(), target
        if anchor and path.suffix == '.md':
            assert anchor in _anchors(path.read_text(encoding='utf-8')), target


def _without_code(text):
    return re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)


def _anchors(text):
    """The anchors that GitHub gives the headings."""
    titles = re.findall(r'^#+ (.*)$', _without_code(text), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}
