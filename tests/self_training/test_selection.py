"""Scores over checkpoints and the two halves of the list."""

import csv
import json
from pathlib import Path

import pytest
import torch
import trained
from PIL import Image

from mmseg_semi.functional.agreement import stability
from mmseg_semi.self_training import select_reliable, selection
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.prediction import Predictor
from mmseg_semi.self_training.scores import ScoreFile, gather_parts, read_table

IDS = ['sub/u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6']
RESULTS = [
    'examples.png',
    'reliable.txt',
    'scores.csv',
    'scores.png',
    'selection.json',
    'unreliable.txt',
]
NO_WORKERS = dict(num_workers=0)


class Killed(BaseException):
    """Stands for a signal."""


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def lines(path):
    return path.read_text().splitlines()


def expected_scores(cfg, checkpoints, pool):
    """Eq. 4 image by image, each checkpoint's masks predicted in the batches of the plan."""
    images = ImagePool(cfg, pool)
    masks = {name: [] for name in images.ids}
    for path in checkpoints:
        predictor = Predictor(cfg, path, 'cpu')
        for positions, samples in images.load(images.plan(8), 0):
            size = samples[0]['data_samples'].ori_shape
            for i, mask in zip(
                positions, predictor.masks(predictor.prepare(samples), size), strict=True
            ):
                masks[images.ids[i]].append(mask)
    return [stability(torch.stack(masks[name]).long(), 4) for name in images.ids]


@pytest.fixture
def given_scores(monkeypatch):
    """Let images have these scores, by file name; keeps the names in the order of scoring."""

    def arrange(scores):
        seen = []

        def look_up(_, samples):
            names = [Path(sample['data_samples'].img_path).stem for sample in samples]
            seen.extend(names)
            return [scores[name] for name in names]

        monkeypatch.setattr(selection, '_stability', look_up)
        return seen

    return arrange


def test_scores_and_halves(cfg, checkpoints, pool, tmp_path):
    summary = select_reliable(cfg, checkpoints, pool, str(tmp_path / 'out'), **NO_WORKERS)
    out = tmp_path / 'out'
    assert sorted(files(out)) == RESULTS
    scores = expected_scores(cfg, checkpoints, pool)
    assert len(set(scores)) == 7
    order = sorted(range(7), key=lambda i: -scores[i])
    assert lines(out / 'reliable.txt') == [IDS[i] for i in order[:3]]
    assert lines(out / 'unreliable.txt') == [IDS[i] for i in order[3:]]
    with open(out / 'scores.csv', newline='') as file:
        header, *rows = csv.reader(file)
    assert header == ['id', 'score', 'reliable']
    assert [row[0] for row in rows] == IDS
    assert [float(row[1]) for row in rows] == scores
    assert [row[2] for row in rows] == [str(int(i in order[:3])) for i in range(7)]
    assert json.loads((out / 'selection.json').read_text()) == summary
    assert (summary['num_images'], summary['num_reliable']) == (7, 3)
    assert summary['threshold'] == scores[order[2]]
    assert summary['checkpoints'] == checkpoints


def test_pictures(cfg, checkpoints, pool, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        selection,
        'save_examples',
        lambda path, *args: drawn.update(args=args) or open(path, 'w').close(),
    )
    select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    with Image.open(tmp_path / 'scores.png') as picture:
        assert picture.width > 400
        assert len(picture.convert('RGB').getcolors(1 << 20)) > 3
    pictures, masks, palette, titles, captions = drawn['args']
    ids, scores, reliable = read_table(str(tmp_path / 'scores.csv'))
    order = sorted(range(7), key=lambda i: -scores[i])  # 7 images: all of them
    for caption, i in zip(captions, order, strict=True):
        assert caption.split()[0] == f'{scores[i]:.4f}'
        assert caption.split()[1:] == ['reliable' if reliable[i] else 'unreliable', ids[i]]
    for picture, i in zip(pictures, order, strict=True):
        sizes = (32, 24) if i in (2, 4) else (24, 32)
        assert (picture == trained.texture(i, *sizes)[..., ::-1]).all()
    predictor = Predictor(cfg, checkpoints[1], 'cpu')
    ((_, samples),) = ImagePool(cfg, pool).load([[order[0]]], 0)
    size = samples[0]['data_samples'].ori_shape
    expected = predictor.masks(predictor.prepare(samples), size)[0].numpy()
    assert (masks[0][1] == expected).all()
    assert len(masks) == 7
    assert {len(of_image) for of_image in masks} == {3}
    assert titles == ['checkpoint 1', 'checkpoint 2', 'checkpoint 3']
    assert palette == trained.PALETTE


def test_equal_scores_stay_in_the_order_of_the_list(cfg, checkpoints, pool, tmp_path, given_scores):
    given_scores(dict.fromkeys(['u0', 'u1', 'u3', 'u6'], 1.0) | dict(u2=1.5, u4=0.5, u5=1.0))
    select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    assert lines(tmp_path / 'reliable.txt') == ['u2', 'sub/u0', 'u1']
    assert lines(tmp_path / 'unreliable.txt') == ['u3', 'u5', 'u6', 'u4']


@pytest.mark.parametrize(
    ('number', 'ratio', 'reliable'),
    [(7, 0.5, 3), (7, 0.25, 1), (7, 0.75, 5), (100, 0.29, 29), (1, 0.5, 0)],
)
def test_how_many_are_reliable(cfg, checkpoints, tmp_path, given_scores, number, ratio, reliable):
    config = dict(type='ShapesDataset', num_images=number, image_size=(16, 16), labeled=False)
    shapes = trained.config([dict(type='LoadShapes'), trained.PACK])
    given_scores({f'{i:06d}': 1.0 for i in range(number)})
    out = str(tmp_path / 'out')
    summary = select_reliable(shapes, checkpoints, config, out, ratio=ratio, **NO_WORKERS)
    assert summary['num_reliable'] == reliable
    ids = [f'{i:06d}' for i in range(number)]
    assert lines(tmp_path / 'out' / 'reliable.txt') == ids[:reliable]
    assert lines(tmp_path / 'out' / 'unreliable.txt') == ids[reliable:]
    assert summary['threshold'] == (1.0 if reliable else None)
    assert sorted(files(out)) == RESULTS


def test_each_image_is_loaded_once_for_all_networks(cfg, checkpoints, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, '_EXAMPLES', 0)
    prepared = []
    prepare = Predictor.prepare
    monkeypatch.setattr(
        Predictor,
        'prepare',
        lambda self, samples: prepared.extend(samples) or prepare(self, samples),
    )
    select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    assert len(prepared) == 7


def test_two_checkpoints_are_enough(cfg, checkpoints, pool, tmp_path):
    select_reliable(cfg, checkpoints[1:], pool, str(tmp_path), **NO_WORKERS)
    _, scores, _ = read_table(str(tmp_path / 'scores.csv'))
    assert scores == expected_scores(cfg, checkpoints[1:], pool)


def test_checkpoints_that_rank_nothing(cfg, checkpoints, pool, tmp_path):
    for number in (0, 1):
        with pytest.raises(
            ValueError, match=f'^{number} checkpoint.s. give every image a score of 0'
        ):
            select_reliable(cfg, checkpoints[:number], pool, str(tmp_path), **NO_WORKERS)
    with pytest.raises(
        ValueError, match=r'^The checkpoints .*iter_1.pth and .*iter_1.pth are the same'
    ):
        select_reliable(cfg, [*checkpoints, checkpoints[0]], pool, str(tmp_path), **NO_WORKERS)
    with pytest.raises(FileNotFoundError, match=r'^The checkpoint gone.pth does not exist'):
        select_reliable(cfg, [checkpoints[0], 'gone.pth'], pool, str(tmp_path), **NO_WORKERS)
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_other_classes(cfg, checkpoints, pool, tmp_path):
    other = trained.checkpoint(trained.config(num_classes=5), tmp_path / 'five.pth')
    with pytest.raises(
        ValueError, match=r'five.pth does not fit the network of the config \(size mismatch'
    ):
        select_reliable(cfg, [other, checkpoints[0]], pool, str(tmp_path / 'out'), **NO_WORKERS)


@pytest.mark.parametrize('ratio', [0.0, 1.0, 1.5])
def test_ratio_out_of_range(cfg, checkpoints, pool, tmp_path, ratio):
    with pytest.raises(ValueError, match=rf'^ratio, .* must be in \(0, 1\), got {ratio}'):
        select_reliable(cfg, checkpoints, pool, str(tmp_path), ratio=ratio)


def test_a_diverged_checkpoint(cfg, checkpoints, pool, tmp_path):
    state = torch.load(checkpoints[1], weights_only=False)
    state['state_dict']['decode_head.conv_seg.bias'][:] = float('nan')
    torch.save(state, tmp_path / 'nan.pth')
    some = [checkpoints[0], str(tmp_path / 'nan.pth'), checkpoints[2]]
    with pytest.raises(
        ValueError, match=r'nan.pth predicts values that are not finite for .*u0.png'
    ):
        select_reliable(cfg, some, pool, str(tmp_path / 'out'), **NO_WORKERS)


def test_killed_and_continued(cfg, checkpoints, pool, tmp_path, monkeypatch):
    whole = tmp_path / 'whole'
    summary = select_reliable(cfg, checkpoints, pool, str(whole), batch_size=2, **NO_WORKERS)
    out = tmp_path / 'out'
    append, calls = ScoreFile.append, []

    def die(self, scores):
        if len(calls) == 2:
            raise Killed
        calls.append(scores)
        append(self, scores)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreFile, 'append', die)
        with pytest.raises(Killed):
            select_reliable(cfg, checkpoints, pool, str(out), batch_size=2, **NO_WORKERS)
    assert sorted(files(out)) == ['begun.json', 'scores_so_far_rank0.csv']
    scored = [name for scores in calls for name in scores]
    assert len(scored) == 4
    # It was several ranks that had started, and one died in the middle of a line.
    path = out / 'scores_so_far_rank0.csv'
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(first + rest[0] + rest[1][:-4])
    (out / 'scores_so_far_rank5.csv').write_text(rest[2])
    predicted = []
    plain = selection._stability
    monkeypatch.setattr(
        selection,
        '_stability',
        lambda predictors, samples: predicted.append(len(samples)) or plain(predictors, samples),
    )
    again = select_reliable(cfg, checkpoints, pool, str(out), batch_size=2, **NO_WORKERS)
    assert again == summary
    assert sum(predicted) == 5  # three were not scored, and the torn line's batch has two images
    results = files(out)
    assert sorted(results) == RESULTS
    assert results == files(whole)


def test_killed_before_the_summary(cfg, checkpoints, pool, tmp_path, monkeypatch):
    """Everything is scored: nothing goes through the networks again but for the picture."""
    with monkeypatch.context() as patch:
        patch.setattr(selection, 'save_histogram', lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    monkeypatch.setattr(selection, '_stability', None)
    select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    assert sorted(files(tmp_path)) == RESULTS


def test_a_finished_folder_is_left_as_it_is(cfg, checkpoints, pool, tmp_path, monkeypatch):
    summary = select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS)
    before = files(tmp_path)
    monkeypatch.setattr(selection, 'Predictor', None)
    assert select_reliable(cfg, checkpoints, pool, str(tmp_path), **NO_WORKERS) == summary
    for words, change in (
        ('ratio=0.5 and not with 0.25', dict(ratio=0.25)),
        ('checkpoints_sha256=', dict(checkpoints=checkpoints[::-1])),
    ):
        with pytest.raises(ValueError, match=f'was started with {words}'):
            select_reliable(
                cfg,
                change.pop('checkpoints', checkpoints),
                pool,
                str(tmp_path),
                **change,
                **NO_WORKERS,
            )
    assert files(tmp_path) == before


def test_ids_with_commas_and_quotes(tmp_path):
    scores = {'a,b': 0.1, 'say "x"': 1 / 3, 'plain': 2.0}
    ScoreFile(str(tmp_path)).append(scores)
    ScoreFile(str(tmp_path)).append({'late': 0.25})
    assert gather_parts(str(tmp_path)) == {**scores, 'late': 0.25}
    assert [path.name for path in tmp_path.iterdir()] == ['scores_so_far.csv']
    assert gather_parts(str(tmp_path)) == {**scores, 'late': 0.25}
    assert gather_parts(str(tmp_path / 'nowhere')) == {}


def test_scores_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(
        OSError, match=r'rank0.csv cannot be written \(Not a directory\). Free space'
    ):
        ScoreFile(str(tmp_path / 'file')).append({'a': 1.0})


def test_scores_are_numbers_for_any_mask(cfg, checkpoints, pool):
    """No class in common, one class everywhere."""
    predictors = [Predictor(cfg, path, 'cpu') for path in checkpoints]
    masks = iter([torch.full((1, 4, 4), c, dtype=torch.uint8) for c in (0, 1, 2)])
    for predictor in predictors:
        predictor.masks = lambda *_: next(masks)
    ((_, samples),) = ImagePool(cfg, pool).load([[0]], 0)
    assert selection._stability(predictors, samples) == [0.0]
