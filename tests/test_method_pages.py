"""Every method has a page of the same headings, and its table of settings is the declaration's."""

import re
from pathlib import Path

import pytest
from mmseg.registry import MODELS

from mmseg_semi.models import SemiSegmentor

DOCS = Path(__file__).parents[1] / 'docs'
HEADINGS = ['Idea', 'When to choose it', 'Config', 'Settings', 'Cost and results']
PAGES = {
    'CPS': 'cps',
    'CutMixSeg': 'cutmix_seg',
    'DeS4': 'des4',
    'ESL': 'esl',
    'FixMatch': 'fixmatch',
    'GPS': 'gps',
    'IMAS': 'imas',
    'MeanTeacher': 'mean_teacher',
    'U2PL': 'u2pl',
    'UniMatch': 'unimatch',
    'UniMatchV2': 'unimatch_v2',
}


def test_every_method_has_a_page():
    methods = {
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type)
        and issubclass(cls, SemiSegmentor)
        and cls.__module__.startswith('mmseg_semi.')
    }
    assert methods == PAGES.keys()
    overview = (DOCS / 'methods.md').read_text(encoding='utf-8')
    assert [name for name in PAGES.values() if f'({name}.md' not in overview] == []


@pytest.mark.parametrize('method', PAGES)
def test_page_has_the_settings_of_the_declaration(method):
    text = (DOCS / f'{PAGES[method]}.md').read_text(encoding='utf-8')
    assert re.findall(r'^## (.*)$', text, re.MULTILINE) == HEADINGS
    (table,) = re.findall(
        rf'<!-- settings: {method} -->\n(.*?)\n<!-- end of settings -->', text, re.DOTALL
    )
    printed = MODELS.get(method).Settings.table()
    assert table.splitlines() == printed.splitlines(), f'python tools/settings.py {method}'
