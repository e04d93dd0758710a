"""Rows, table and CSV of made results."""

import csv
import io

import pytest

from mmseg_semi.comparison import Cost, Run, Score, TrainingCost, csv_text, markdown, rows


def cost(seconds=0.5, memory=800.0, **changes):
    given = dict(
        seconds_per_iteration=seconds,
        peak_memory_mib=memory,
        memory_kind='resident',
        device='CPU',
        iterations=600,
        total_iterations=600,
        trainings=(TrainingCost('', 600, 600, 4800, 0),),
        labeled_seen=4800,
        unlabeled_seen=0,
    )
    return Cost(**{**given, **changes})


def run(method, seed, scores, **changes):
    given = dict(config=f'{method}.py', cost=cost())
    scores = {network: Score(*values) for network, values in scores.items()}
    return Run(method=method, seed=seed, scores=scores, **{**given, **changes})


TWICE = (TrainingCost('teacher', 600, 300, 4800, 0), TrainingCost('student', 600, 300, 2500, 2300))
RUNS = [
    run('suponly', 0, {'': (50.0, 51.0, 300)}),
    run(
        'st', 0, {'': (52.0, 52.0, 600)}, cost=cost(trainings=TWICE, total_iterations=1200), jobs=2
    ),
    run('imas', 0, {'student': (54.0, 56.0, 450), 'teacher': (53.0, 57.0, 150)}),
    run('suponly', 1, {'': (60.0, 60.0, 600)}, cost=cost(0.7, 900.0)),
    run('st', 1, {}, cost=None, error='exit code 1: ValueError: no | way'),
    run('imas', 1, {'student': (66.0, 66.0, 600), 'teacher': (61.0, 62.0, 450)}),
    run('esl', 0, {}, cost=None),
    run('esl', 1, {}, cost=None, error='ended by SIGKILL: gone'),
]


def test_gain_is_over_the_same_seeds():
    found = {row.name: row for row in rows(RUNS, 'suponly')}
    assert list(found) == ['suponly', 'st', 'imas, student', 'imas, teacher']
    assert found['suponly'].last == pytest.approx((55.0, 50**0.5))
    assert found['st'].last == (52.0, None)
    # Seed 0 alone is finished: not 52 - 55.
    assert found['st'].gain.mean == 2.0
    assert found['imas, student'].gain.mean == pytest.approx(5.0)
    assert found['imas, student'].best.mean == 61.0


def test_table_says_what_is_missing():
    lines = markdown(RUNS, 'suponly', 'mIoU', {'st': {'crop': '3, not 4'}, 'imas': {}}).splitlines()
    assert lines[0].startswith(
        '|  | mIoU, last | mIoU, best | gain on suponly, last | s/iteration | resident'
    )
    assert (
        lines[2]
        == '| suponly | 55.00 ± 7.07 | 55.50 ± 6.36 | +0.00 | 0.600 | 900 | 600 | 4800 | 0 | - |'
    )
    assert lines[3] == (
        '| st (1 of 2 seeds) | 52.00 | 52.00 | +2.00 | 0.500 | 800 | teacher 600 + student 600 '
        '| teacher 4800 + student 2500 | teacher 0 + student 2300 | crop |'
    )
    assert lines[6].startswith('| esl | failed and not run |')
    assert len({line.count('|') for line in lines[:7]}) == 1
    notes = '\n'.join(lines[7:])
    assert (
        '- st trains for 600 optimizer steps in all: teacher 300 steps (4800 labeled and 0 unlabeled '
        'images), student 300 steps (2500 labeled and 2300 unlabeled images).'
    ) in notes
    assert 'imas trains' not in notes
    assert '- st differs in crop: 3, not 4.' in notes
    assert 'imas differs' not in notes
    assert 'Up to 2 runs shared the machine' in notes
    assert 'Ran on CPU. s/iteration: the median' in notes
    assert '- st, seed 1, failed: exit code 1: ValueError: no | way' in notes
    assert '- esl, seed 1, failed: ended by SIGKILL: gone' in notes


def test_without_a_baseline_there_is_no_gain():
    assert 'gain' not in markdown(RUNS, None, 'mIoU', {})
    assert [row.gain for row in rows(RUNS)] == [None] * 4


def test_a_baseline_of_several_networks_is_one_of_them():
    for report in (rows, lambda *args: csv_text(*args, 'mIoU')):
        with pytest.raises(ValueError, match='Give one of imas/student, imas/teacher'):
            report(RUNS, 'imas')
    gains = {row.name: row.gain and row.gain.mean for row in rows(RUNS, 'imas/teacher')}
    assert gains['imas, teacher'] == 0
    assert gains['imas, student'] == pytest.approx((1 + 5) / 2)
    assert gains['suponly'] == pytest.approx((-3 - 1) / 2)
    assert 'gain on imas/teacher, last' in markdown(RUNS, 'imas/teacher', 'mIoU', {})
    lines = csv.DictReader(io.StringIO(csv_text(RUNS, 'imas/teacher', 'mIoU')))
    assert [line['gain_last'] for line in lines if line['method'] == 'suponly'] == ['-3.0', '-1.0']


def test_each_method_has_its_own_baseline():
    runs = [
        *RUNS[:2],
        run('suponly-des4', 0, {'': (49.0, 49.0, 600)}),
        run('des4', 0, {'teacher': (55.0, 55.0, 600)}),
    ]
    over = dict.fromkeys(('suponly-des4', 'des4'), 'suponly-des4') | {'suponly': 'suponly'}
    gains = {row.method: row.gain and row.gain.mean for row in rows(runs, over)}
    assert gains == {'suponly': 0.0, 'st': None, 'suponly-des4': 0.0, 'des4': 6.0}
    text = markdown(runs, over, 'mIoU', {})
    assert '| mIoU, best | gain, last |' in text
    assert (
        '- Gain: that of suponly-des4, des4 on suponly-des4; that of suponly on suponly, which'
        in text
    )
    lines = csv.DictReader(io.StringIO(csv_text(runs, over, 'mIoU')))
    assert [(line['baseline'], line['gain_last']) for line in lines] == [
        ('suponly', '0.0'),
        ('', ''),
        ('suponly-des4', '0.0'),
        ('suponly-des4', '6.0'),
    ]


def test_csv_has_a_line_for_every_run_and_network():
    lines = list(csv.DictReader(io.StringIO(csv_text(RUNS, 'suponly', 'mIoU'))))
    assert len(lines) == 10
    teacher = next(line for line in lines if (line['network'], line['seed']) == ('teacher', '0'))
    assert (teacher['mIoU_last'], teacher['mIoU_best'], teacher['best_iteration']) == (
        '53.0',
        '57.0',
        '150',
    )
    assert teacher['gain_last'] == '3.0'
    assert teacher['memory_kind'] == 'resident'
    assert [line['trainings'] for line in lines if line['method'] == 'st'] == [
        'teacher 300 steps (4800 labeled and 0 unlabeled images); '
        'student 300 steps (2500 labeled and 2300 unlabeled images)',
        '',
    ]
    states = [line['status'] for line in lines if line['method'] in ('st', 'esl')]
    assert states == ['finished', 'failed', 'not run', 'failed']
    assert [line['jobs'] for line in lines if line['method'] == 'st'] == ['2', '1']
