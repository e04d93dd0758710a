"""The tool that prints stored rows as tables, and the documents that show its values."""

import importlib.util
import re
from pathlib import Path

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
    """By baseline, the cells of every line that the tool prints."""
    groups = {}
    for row in read_rows(ROWS):
        name = row['partition'] or ''
        for pattern in {name, re.sub(rf'{row["seed"]}$', '{seed}', name)}:
            groups.setdefault((row['dataset'], pattern), []).append(row)
    return {
        baseline: [
            cells_of(line)
            for (_, pattern), rows in groups.items()
            for table in tables(rows, pattern)
            for line in markdown(table, baseline).splitlines()[4:]
        ]
        for baseline in ('suponly', 'suponly-des4')
    }


def means(lines, method):
    """The mean, the gain and the gains per seed of the lines of a method."""
    for name, _, _, _, *seeds, mean, gain in lines:
        if name.startswith(method):
            yield mean, gain, re.findall(r'\(([^)]*)\)', ' '.join(seeds))


def test_the_tables_of_results_are_printed_by_the_tool(printed):
    checked = 0
    for head, rows in tables_of('docs/results.md'):
        if 'gain per seed' not in head:
            continue
        method = 'imas, teacher' if 'iMAS, teacher' in head else 'unimatch-v2, teacher'
        lines = list(means(printed['suponly'], method))
        supervised = {mean for mean, _, _ in means(printed['suponly'], 'suponly')}
        students = {
            mean for mean, _, _ in means(printed['suponly'], method.replace('teacher', 'student'))
        }
        for row in rows:
            cell = dict(zip(head, row, strict=True))
            value = row[3].removesuffix(' (one seed)')
            gains = cell['gain per seed'].split(', ')
            gain = cell['gain, mean'] or gains[0]
            assert (value, gain, gains) in lines, row
            assert cell['supervised'] in supervised, row
            assert cell['supervised, all labels'].removesuffix(' (one seed)') in supervised, row
            assert cell.get('student', value) in students | {value}, row
            checked += 1
    assert checked >= 20


def test_the_tables_of_all_methods_are_printed_by_the_tool(printed):
    checked = 0
    for head, rows in tables_of('docs/results.md'):
        if head[1:] != ['seed 0', 'seed 1', 'seed 2', 'gain, mean']:
            continue
        for name, *seeds, gain in rows:
            lines = printed['suponly-des4' if name.startswith('DeS4') else 'suponly']
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
    names = {'UniMatch V2': 'unimatch-v2, teacher', 'iMAS': 'imas, teacher'}
    supervised = {mean for mean, _, _ in means(printed['suponly'], 'suponly')}
    for row in rows:
        _, method, base, value, gain = row
        lines = [found[:2] for found in means(printed['suponly'], names[method.split(',')[0]])]
        assert (value, gain) in lines, row
        assert base in supervised, row


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
