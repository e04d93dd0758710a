"""Words that a reader stumbles over: British spellings and phrases that have a plainer form.

codespell looks for misspelled words (`[tool.codespell]` in pyproject.toml); this list is for words that are
spelled right and are not ours. A phrase is also found where it is wrapped over two lines, string literals or
comments. Run it alone with `pytest tests/test_words.py`.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    'README.md',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    '.ci',
    'benchmarks',
    'configs',
    'docs',
    'examples',
    'mmseg_semi',
    'requirements',
    'tests',
    'tools',
)
SUFFIXES = {'.cfg', '.md', '.py', '.sh', '.toml', '.txt', '.yaml', '.yml', ''}

ALLOWED = {
    # An argument whose name is public.
    'mmseg_semi/functional/prototypes.py': {'initialised'},
    'mmseg_semi/models/heads/prototype_classifier.py': {'initialised'},
    'mmseg_semi/models/memory.py': {'initialised'},
    'tests/functional/test_prototypes.py': {'initialised'},
    # A name of void in other people's color maps.
    'mmseg_semi/datasets/color_map.py': {'unlabelled'},
    'docs/datasets.md': {'unlabelled'},
}
"""File = words that it may have."""

WORDS = {
    r'(\w*)labell(ed|ing|er)(\w*)': r'\1label\2\3',
    r'(\w*)colour(\w*)': r'\1color\2',
    r'(\w*)behaviour(\w*)': r'\1behavior\2',
    r'(\w*)neighbour(\w*)': r'\1neighbor\2',
    r'(\w*)favour(\w*)': r'\1favor\2',
    r'centre(s|d)?': r'center\1',
    r'grey': 'gray',
    r'learnt': 'learned',
    r'(mis)?spelt': r'\1spelled',
    r'(normal|optim|minim|maxim|serial|synchron|initial|recogn|organ|summar|visual|general|regular|quant)'
    r'is(e|ed|es|ing|er|ers|ation|ations)': r'\1iz\2',
    r'whilst': 'while',
    r'amongst': 'among',
    r'anew': 'again',
}
"""Pattern of a whole word = what to write."""

PHRASES = {
    r'whose labels a network makes': 'with pseudo-labels',
    r'as many of them (in )?a step': 'with the same number of them per step',
    r'(images|labels|\d+) a step': r'\1 per step',
    r'is no confidence': 'must be in [0, 1]',
    r'(?<!here\x20)is no (?!longer|more|such|reason|way)(\w+)': r'is not a \1',
    r'names no': 'has no',
    r'(is|are) told by': 'is assigned by',
    r'takes every image once': 'uses every image once',
    r'Say `': 'Set `',
    r'(goes|go) on': 'continues',
    r'choose of': 'choose one of',
    r'(lies|lie) behind': 'is read through',
    r'(to|need) mend(ing)?': 'to fix',
    r'(was|were) begun (with|by|on)': r'\1 started \2',
    r'[Aa]lso serves': 'also works for',
    r'[Dd]rawn (shapes|images)': r'synthetic \1',
    r'in its place': 'instead',
}
"""Pattern of a phrase = what to write."""

GAP = r"""(?:\s*['"]\s*\n\s*[rf]*['"]|\s*\n\s*\#:?\s*|\s+)"""
"""What may stand between two words: a space, or the end of a line, a literal or a comment and the next."""


def found(text):
    """(line, words, replacement) of each finding in a text."""
    for patterns, flags in ((WORDS, re.IGNORECASE), (PHRASES, 0)):
        for pattern, replacement in patterns.items():
            spaced = pattern.replace(' ', GAP) if patterns is PHRASES else pattern
            # A word ends where an identifier has an underscore, too.
            for match in re.finditer(rf'(?<![A-Za-z0-9])(?:{spaced})(?![A-Za-z0-9])', text, flags):
                said = re.sub(GAP, ' ', match.group())
                yield text.count('\n', 0, match.start()) + 1, said, match.expand(replacement)


def files():
    this = Path(__file__).resolve()
    for place in map(ROOT.joinpath, PLACES):
        for path in [place] if place.is_file() else sorted(place.rglob('*')):
            if (
                path.is_file()
                and path != this
                and path.suffix in SUFFIXES
                and '__pycache__' not in path.parts
            ):
                yield path


def test_words():
    findings = [
        f'{name}:{line}: "{said}": write "{replacement}"'
        for path in files()
        for name in [path.relative_to(ROOT).as_posix()]
        for line, said, replacement in found(path.read_text(encoding='utf-8'))
        if said not in ALLOWED.get(name, ())
    ]
    assert not findings, '\n' + '\n'.join(findings)


def test_all_places_are_looked_at():
    names = {path.relative_to(ROOT).parts[0] for path in files()}
    assert names == set(PLACES)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('one\nan unlabelled image', [(2, 'unlabelled', 'unlabeled')]),
        ('def test_grey_image(): ...', [(1, 'grey', 'gray')]),
        ('Colours', [(1, 'Colours', 'colors')]),
        ("f'{tau} is no '\n    f'number'", [(1, 'is no number', 'is not a number')]),
        ('# It names\n# no class.', [(1, 'names no', 'has no')]),
        ('There is no more of it; a gray, labeled image is not one.', []),
        ('greyhound', []),
    ],
)
def test_findings(text, expected):
    text_of = [(line, said, to.lower()) for line, said, to in found(text)]
    assert text_of == [(line, said, to.lower()) for line, said, to in expected]
