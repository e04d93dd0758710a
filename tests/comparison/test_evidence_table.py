"""Tables of stored rows: which rows share a line, and the gains over the right baseline."""

import pytest

from mmseg_semi.comparison.evidence_table import markdown, select, tables


def row(seed, last, *, method='imas', network='teacher', commit='a' * 40, **changed):
    score = {'last': last, 'best': 99.0, 'class_iou': {'cell': last / 2, 'hole': None}}
    return {
        'dataset': 'cells',
        'partition': f'l8_{seed}',
        'val': None,
        'method': method,
        'network': 'tiny',
        'seed': seed,
        'lr': 0.01,
        'options': {},
        'hooks': [],
        'commit': commit,
        'scores': {network: score},
        'steps': 10,
        **changed,
    }


def supervised(seed, last, **changed):
    return row(seed, last, method='suponly', network='', **changed)


def lines_of(rows, **how):
    (table,) = tables(rows, 'l8_{seed}', **how)
    return table.lines


def test_values_gains_and_deviation():
    rows = [supervised(0, 50.0), supervised(1, 40.0), row(0, 51.0), row(1, 38.5), row(2, 45.0)]
    (table,) = tables(rows, 'l8_{seed}')
    assert markdown(table, 'suponly').splitlines() == [
        'mIoU, cells, partition l8_{seed}, tiny, 10 steps',
        '',
        '| method | settings | lr | commit | seed 0 | seed 1 | seed 2 | mean | gain |',
        '|---|---|---|---|---|---|---|---|---|',
        '| suponly |  | 0.01 | aaaaaaa | 50.00 | 40.00 |  | 45.00 ± 7.07 |  |',
        '| imas, teacher |  | 0.01 | aaaaaaa | 51.00 (+1.00) | 38.50 (-1.50) | 45.00 | 44.83 ± 6.25 | -0.25 |',
    ]


def test_the_baseline_has_the_same_learning_rate():
    rows = [supervised(0, 50.0), supervised(0, 40.0, lr=0.1), row(0, 51.0, lr=0.1)]
    (table,) = tables(rows)
    assert '51.00 (+11.00)' in markdown(table, 'suponly')
    (table,) = tables(rows[:1] + rows[2:])
    assert '51.00 |' in markdown(table, 'suponly')


def test_the_first_line_of_the_baseline_counts():
    again = supervised(0, 60.0, commit='b' * 40)
    (table,) = tables([supervised(0, 50.0), again, row(0, 51.0)])
    assert '51.00 (+1.00)' in markdown(table, 'suponly')


def test_commits_share_a_line_without_a_common_seed_in_any_order():
    old, new = 'a' * 40, 'b' * 40
    rows = [row(0, 1.0, commit=old), row(1, 2.0, commit=new), row(2, 3.0, commit=new)]
    (line,) = lines_of(rows)
    assert (line.commits, line.values) == (['aaaaaaa', 'bbbbbbb'], {0: 1.0, 1: 2.0, 2: 3.0})
    first, second = lines_of([*rows, row(0, 4.0, commit=new)])
    assert (first.commits, first.values) == (['aaaaaaa'], {0: 1.0})
    assert (second.commits, second.values) == (['bbbbbbb'], {0: 4.0, 1: 2.0, 2: 3.0})


def test_repetitions_and_other_hooks_have_their_own_line():
    first, second = lines_of([row(0, 1.0), row(0, 2.0), row(1, 3.0)])
    assert (first.values, second.values) == ({0: 1.0, 1: 3.0}, {0: 2.0})
    first, second = lines_of([row(0, 1.0), row(1, 2.0, hooks=[{'type': 'FreezeHook'}])])
    assert (first.values, second.values) == ({0: 1.0}, {1: 2.0})


def test_settings_make_lines_and_images_make_tables():
    adjusted = {'model.semi_train_cfg.adjust_logits': True}
    test_images = {'val_dataloader.dataset.ann_file': 'test.txt'}
    rows = [
        row(0, 1.0),
        row(0, 2.0, options=adjusted),
        row(0, 3.0, options={**adjusted, **test_images}),
        row(0, 4.0, val='tuning.txt'),
        row(0, 5.0, steps=20),
    ]
    plain, test, tuning, long = tables(rows)
    assert [line.settings for line in plain.lines] == ['', 'adjust_logits=true']
    assert [line.values for line in test.lines] == [{0: 3.0}]
    assert test.title.endswith('10 steps, val_dataloader.dataset.ann_file=test.txt')
    assert tuning.title.endswith('10 steps, val_dataloader.dataset.ann_file=tuning.txt')
    assert long.title == 'mIoU, cells, partition l8_0, tiny, 20 steps'


def test_a_class_is_shown_and_an_absent_one_left_out():
    rows = [row(0, 10.0), row(1, 20.0)]
    (line,) = lines_of(rows, iou='cell')
    assert line.values == {0: 5.0, 1: 10.0}
    assert lines_of(rows, iou='hole') == []
    with pytest.raises(ValueError, match=r"cells has no class 'cel'. Give one of cell, hole"):
        tables(rows, iou='cel')


def test_rows_are_selected_and_the_seed_stands_in_the_partition():
    rows = [row(0, 1.0), row(1, 2.0), row(1, 3.0, partition='l8_0'), row(0, 4.0, steps=20)]
    chosen = select(rows, partition='l8_{seed}', steps=10, dataset=None)
    assert [one['scores']['teacher']['last'] for one in chosen] == [1.0, 2.0]
    with pytest.raises(ValueError, match=r'No row has steps=30. The other options leave 10, 20'):
        select(rows, dataset='cells', steps=30)
