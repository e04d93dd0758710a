"""Each method has a page in docs with the same headings, which the site completes with its settings."""

import importlib.util
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


@pytest.fixture(scope='module')
def hooks():
    """docs/site_hooks.py, which makes the site's tables without importing the package."""
    spec = importlib.util.spec_from_file_location('site_hooks', ROOT / 'docs' / 'site_hooks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('method', methods())
def test_the_site_shows_the_settings_as_the_tool_prints_them(method, hooks):
    assert hooks.settings_table(method) == methods()[method].Settings.table()


@pytest.mark.parametrize('method', methods())
def test_the_page_leaves_the_settings_to_the_site(method):
    (text,) = pages_of(method).values()
    remedy = 'Remove the table between the two comments: the site puts it there.'
    assert f'<!-- settings: {method} -->\n<!-- end of settings -->\n' in text, remedy


def test_the_site_refuses_settings_of_no_method(hooks):
    with pytest.raises(ValueError, match='settings: FxMatch -->: mmseg_semi has no method FxMatch'):
        hooks.settings_table('FxMatch')


def test_the_site_has_the_arguments_of_the_tools(hooks):
    text = hooks.tools_text()
    sections = dict(
        re.findall(r'^## (tools/\S+)\n(.*?)(?=^## |\Z)', text, re.MULTILINE | re.DOTALL)
    )
    python = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'tools').rglob('*.py')}
    assert set(sections) == python
    # Its own argument, one of a shared function, choices from another file, and an argument that is hidden.
    assert '| `--amp` | ' in sections['tools/train.py']
    assert '| `--cfg-options` | ' in sections['tools/train.py']
    assert 'one of `tsne`, `pca`' in sections['tools/draw_esl.py']
    assert '`--local_rank`' not in text
    assert '### splits.py import\n' in sections['tools/splits.py']
    assert '0.5 0.75 1.0 1.5 2.0' in sections['tools/pseudo_label.py']
    assert (
        'accept other counts than 2975 and 500'
        in sections['tools/dataset_converters/cityscapes.py']
    )


def test_links_of_the_site(hooks):
    text = '[a](docs/imas.md#idea) [b](configs/imas) [c](LICENSE) `[d](x)` [e](https://x.org)'
    made = hooks.site_links(text, ROOT / 'README.md', 'https://example.org/us')
    assert made == (
        '[a](imas.md#idea) [b](https://example.org/us/tree/main/configs/imas) '
        '[c](https://example.org/us/blob/main/LICENSE) `[d](x)` [e](https://x.org)'
    )
    assert hooks.site_links('[b](configs/imas)', ROOT / 'README.md', None) == 'b'
    page = ROOT / 'docs' / 'api' / 'models.md'
    assert hooks.site_links('[r](../../README.md)', page, None) == '[r](../index.md)'


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
