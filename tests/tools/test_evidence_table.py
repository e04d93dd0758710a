"""The tool that prints stored rows as tables, and the documents that show its values."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from mmseg_semi.comparison.evidence import read_rows
from mmseg_semi.comparison.evidence_table import markdown, tables

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / 'docs/results/reported.jsonl'
TOOL = ROOT / 'tools/evidence_table.py'
spec = importlib.util.spec_from_file_location('evidence_table', TOOL)
evidence_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(evidence_table)


def cells_of(line):
    return [cell.strip(' *') for cell in line.replace('−', '-').strip('|').split('|')]


def tables_of(file):
    """Yield the head and the rows of each table of a document."""
    for block in re.findall(r'(?:^\|.*\n)+', (ROOT / file).read_text(), re.MULTILINE):
        head, _, *rows = map(cells_of, block.splitlines())
        yield head, rows


@pytest.fixture(scope='module')
def printed():
    """By baseline, each table that the tool prints: its title and the cells of its lines."""
    groups = {}
    for row in read_rows(ROWS):
        name = row['partition'] or ''
        for pattern in {name, re.sub(rf'{row["seed"]}$', '{seed}', name)}:
            groups.setdefault((row['dataset'], pattern), []).append(row)
    found = {}
    for baseline in ('suponly', 'suponly-des4'):
        texts = [
            markdown(table, baseline).splitlines()
            for (_, pattern), rows in groups.items()
            for table in tables(rows, pattern)
        ]
        found[baseline] = [(title, list(map(cells_of, lines))) for title, _, _, _, *lines in texts]
    return found


class Printed(NamedTuple):
    """Two lines of a table, supervised training and a method, and the training with all labels."""

    steps: str
    supervised: str
    value: str
    gain: str
    gains: list
    student: str
    all_labels: str


def comparisons(printed, method):
    """Each line of a teacher beside those that it is compared with, of the same data set and settings."""
    ceilings = {}
    for title, lines in printed:
        kind, labels = re.fullmatch(r'mIoU, (.*), partition ([^,]*), .*', title).groups()
        if labels in ('all', 'None'):
            network, steps = re.search(r', partition [^,]*, (\S+), (\d+) steps', title).groups()
            for _, settings, rate, *_, mean, _ in lines:
                if 'num_classes' not in settings:  # not of another task
                    ceilings[kind, network, steps, rate] = mean
    for title, lines in printed:
        kind, network, steps = re.fullmatch(
            r'mIoU, (.*), partition [^,]*, (\S+), (\d+) steps.*', title
        ).groups()
        base = {line[2]: line[-2] for line in reversed(lines) if line[0] == 'suponly'}
        for name, settings, rate, commit, *seeds, mean, gain in lines:
            students = [
                line[-2]
                for line in lines
                if line[:4] == [f'{method}, student', settings, rate, commit]
            ]
            if name == f'{method}, teacher':
                gains = re.findall(r'\(([^)]*)\)', ' '.join(seeds))
                ceiling = ceilings.get((kind, network, steps, rate), '')
                yield Printed(steps, base.get(rate), mean, gain, gains, students[0], ceiling)


def test_the_tables_of_results_are_printed_by_the_tool(printed):
    checked = 0
    for head, rows in tables_of('docs/results.md'):
        if 'gain per seed' not in head:
            continue
        method = 'imas' if 'iMAS, teacher' in head else 'unimatch-v2'
        known = list(comparisons(printed['suponly'], method))
        for row in rows:
            cell = dict(zip(head, row, strict=True))
            gains = cell['gain per seed'].split(', ')
            claims = [
                line
                for line in known
                if line.steps == cell['steps'].replace(',', '')
                and line.supervised == cell['supervised']
                and line.value == row[3].removesuffix(' (one seed)')
                and line.gains == gains
                and line.gain == (cell['gain, mean'] or gains[0])
                and line.student == cell.get('student', line.student)
                and line.all_labels == cell['supervised, all labels'].removesuffix(' (one seed)')
            ]
            assert claims, row
            checked += 1
    assert checked >= 20


def test_the_tables_of_all_methods_are_printed_by_the_tool(printed):
    checked = 0
    for head, rows in tables_of('docs/results.md'):
        if head[1:] != ['seed 0', 'seed 1', 'seed 2', 'gain, mean']:
            continue
        for name, *seeds, gain in rows:
            of_baseline = printed['suponly-des4' if name.startswith('DeS4') else 'suponly']
            lines = [line for _, lines in of_baseline for line in lines]
            shown = [cell for cell in seeds if cell != 'not measured']
            found = [(line[-1], [cell for cell in line[4:-2] if cell]) for line in lines]
            if not any('(' in cell for cell in shown):
                found = [(gain, [cell.split(' ')[0] for cell in cells]) for _, cells in found]
            assert any(cells == shown and (gain in ('', mean)) for mean, cells in found), (
                name,
                seeds,
            )
            checked += 1
    assert checked >= 30


def test_the_table_of_the_readme_is_printed_by_the_tool(printed):
    (rows,) = [
        rows
        for head, rows in tables_of('README.md')
        if head == ['', 'method', 'supervised', 'semi-supervised', 'gain']
    ]
    names = {'UniMatch V2': 'unimatch-v2', 'iMAS': 'imas'}
    for _, method, base, value, gain in rows:
        known = comparisons(printed['suponly'], names[method.split(',')[0]])
        assert (base, value, gain) in [(line.supervised, line.value, line.gain) for line in known]


def test_the_commands_of_the_documents_print_tables(capsys):
    commands = re.findall(
        r'^python tools/evidence_table\.py (.*)',
        (ROOT / 'docs/results.md').read_text(),
        re.MULTILINE,
    )
    assert commands
    for command in commands:
        evidence_table.main(
            [
                str(ROWS) if part == 'docs/results/reported.jsonl' else part.strip("'")
                for part in command.split()
            ]
        )
        assert '| suponly' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nosuch.jsonl'], r'The file of rows nosuch\.jsonl does not exist\.'),
        (
            [str(ROWS), '--dataset', 'nucleus'],
            'error: No row has dataset=nucleus. The other options leave camvid',
        ),
        ([str(ROWS), '--methods', 'imsa'], 'error: No row has method=imsa'),
        (
            [str(ROWS), '--dataset', 'nuclei', '--iou', 'cell'],
            "error: nuclei has no class 'cell'. Give one of back",
        ),
        ([str(TOOL.with_name('evidence.py'))], 'is not JSON'),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments, message):
    with pytest.raises(SystemExit, match=message):
        evidence_table.main(arguments)
