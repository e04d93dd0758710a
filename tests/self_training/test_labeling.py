"""Pseudo-labels of a folder of images: what is written, what a second call does, what is refused."""

import gc
import json
import logging
import os
import re
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import trained

from mmseg_semi.datasets import PseudoLabeledDataset
from mmseg_semi.datasets.soft_labels import read_soft_label
from mmseg_semi.self_training import labeling, pseudo_label
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.labeling import _report_shares
from mmseg_semi.self_training.masks import MaskWriter, read_mask
from mmseg_semi.self_training.prediction import Predictor

IDS = ['sub/u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6']
NO_WORKERS = dict(num_workers=0)


def files(folder):
    """Content of all files by their path below the folder."""
    folder = Path(folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def expected_masks(cfg, path, pool, **views):
    """Of each image, predicted in the batches of the plan."""
    predictor, images = Predictor(cfg, path, 'cpu'), ImagePool(cfg, pool)
    masks = {}
    for positions, samples in images.load(images.plan(8), 0):
        size = samples[0]['data_samples'].ori_shape
        of_batch = predictor.masks(predictor.prepare(samples), size, **views)
        masks.update({images.ids[i]: m.numpy() for i, m in zip(positions, of_batch, strict=True)})
    return masks


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def killed_after(monkeypatch):
    """Let the call that writes batch ``n`` (0-based) of masks die instead."""

    def arrange(n):
        write, calls = MaskWriter.write, []

        def count(self, *args):
            if len(calls) == n:
                self._wait()  # a real kill may come at any time; here the batches before are whole
                raise Killed
            calls.append(args)
            write(self, *args)

        monkeypatch.setattr(MaskWriter, 'write', count)

    return arrange


@pytest.mark.parametrize('tta', [False, True])
def test_masks_are_those_of_the_network(cfg, checkpoints, pool, tmp_path, tta):
    views = dict(scales=(0.5, 1.0), flip=True) if tta else dict(scales=(1.0,), flip=False)
    summary = pseudo_label(cfg, checkpoints[0], pool, str(tmp_path / 'out'), **views, **NO_WORKERS)
    expected = expected_masks(cfg, checkpoints[0], pool, **views)
    written = {name: read_mask(str(tmp_path / 'out' / f'{name}.png')) for name in IDS}
    for name in IDS:
        assert (written[name] == expected[name]).all()
        assert written[name].max() < 4
    assert sorted(files(tmp_path / 'out')) == sorted(
        [f'{n}.png' for n in IDS] + ['pseudo_labels.json']
    )
    assert json.loads((tmp_path / 'out' / 'pseudo_labels.json').read_text()) == summary
    every = np.concatenate([mask.ravel() for mask in written.values()])
    assert summary['pixels'] == np.bincount(every, minlength=4).tolist()
    assert sum(n > 0 for n in summary['pixels']) >= 2
    assert summary['classes'] == list(trained.CLASSES)
    assert summary['num_images'] == 7
    assert summary['checkpoint'] == checkpoints[0]
    assert summary['settings']['scales'] == list(views['scales'])
    assert summary['settings']['flip'] == tta


def test_pixels_below_a_threshold_are_void(cfg, checkpoints, pool, tmp_path):
    views = dict(scales=(0.5, 1.0), flip=True)
    summary = pseudo_label(
        cfg, checkpoints[0], pool, str(tmp_path / 'out'), threshold=0.5, **views, **NO_WORKERS
    )
    assert summary['settings']['threshold'] == 0.5
    predictor, images = Predictor(cfg, checkpoints[0], 'cpu'), ImagePool(cfg, pool)
    void = 0
    for positions, samples in images.load(images.plan(8), 0):
        size = samples[0]['data_samples'].ori_shape
        # Four views: their sum of softmax maps over 4.
        mean = predictor._scores(predictor.prepare(samples), size, *views.values()) / 4
        sure, label = mean.max(dim=1)
        for i, one, mask in zip(positions, sure.numpy(), label.numpy(), strict=True):
            written = read_mask(str(tmp_path / 'out' / f'{images.ids[i]}.png'))
            assert (written == np.where(one >= 0.5, mask, 255)).all()
            void += (one < 0.5).sum()
    assert 0 < void < sum(summary['pixels'])


def mean_probs(cfg, path, pool):
    """Of each image the mean softmax of four views, computed in the batches of the plan."""
    predictor, images, found = Predictor(cfg, path, 'cpu'), ImagePool(cfg, pool), {}
    for positions, samples in images.load(images.plan(8), 0):
        size = samples[0]['data_samples'].ori_shape
        total = predictor._scores(predictor.prepare(samples), size, (0.5, 1.0), True)
        found.update({images.ids[i]: one / 4 for i, one in zip(positions, total, strict=True)})
    return found


def test_soft_labels_are_those_of_the_network(cfg, checkpoints, pool, tmp_path):
    """Beside every mask, also where a kill came between; and the masks stay as they are without."""
    views = dict(scales=(0.5, 1.0), flip=True, **NO_WORKERS)
    hard, soft = str(tmp_path / 'hard'), str(tmp_path / 'soft')
    pseudo_label(cfg, checkpoints[0], pool, hard, **views)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskWriter, '_write', mock.Mock(side_effect=Killed))
        with pytest.raises(Killed):
            pseudo_label(cfg, checkpoints[0], pool, soft, soft=3, **views)
    summary = pseudo_label(cfg, checkpoints[0], pool, soft, soft=3, **views)
    assert summary['soft'] == summary['settings']['soft'] == 3
    written = files(soft)
    for name, probs in mean_probs(cfg, checkpoints[0], pool).items():
        assert written[f'{name}.png'] == files(hard)[f'{name}.png']
        maps = read_soft_label(f'{soft}/{name}.soft', probs.shape[1:], 3, 4)
        values, classes = probs.sort(dim=0, descending=True)
        assert (maps[:3] == classes[:3].numpy()).all()
        assert (maps[3:] == (255 * values[:3]).round().numpy()).all()
    assert sum(name.endswith('.soft') for name in written) == len(IDS)
    assert 'soft' not in json.loads(files(hard)['pseudo_labels.json'])


@pytest.mark.parametrize('soft', [0, 2.5, 5])
def test_numbers_of_soft_classes_that_do_not_fit(cfg, checkpoints, pool, tmp_path, soft):
    with pytest.raises(ValueError, match=rf'^soft(={soft} |, .* got {soft})'):
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path / 'out'), soft=soft, **NO_WORKERS)


def test_the_paper_s_views_are_the_default(cfg, checkpoints, pool, tmp_path):
    summary = pseudo_label(
        cfg, checkpoints[0], pool, str(tmp_path / 'out'), subset=['u1'], **NO_WORKERS
    )
    assert summary['settings']['scales'] == [0.5, 0.75, 1.0, 1.5, 2.0]
    assert summary['settings']['flip']


def test_the_folder_is_what_a_training_reads(cfg, checkpoints, pool, tmp_path):
    out = str(tmp_path / 'out')
    pseudo_label(cfg, checkpoints[0], pool, out, subset=['u2', 'sub/u0'], **NO_WORKERS)
    pipeline = [trained.LOAD, dict(type='LoadAnnotations'), trained.PACK]
    dataset = PseudoLabeledDataset(pool, out, pipeline)
    labels = [dataset[i]['data_samples'].gt_sem_seg.data[0] for i in range(len(dataset))]
    paths = [os.path.join(out, name) for name in ('sub/u0.png', 'u2.png')]
    assert [label.tolist() for label in labels] == [read_mask(path).tolist() for path in paths]


def test_a_subset_and_none_at_all(cfg, checkpoints, pool, tmp_path):
    summary = pseudo_label(
        cfg, checkpoints[0], pool, str(tmp_path / 'two'), subset=['u4', 'u1'], **NO_WORKERS
    )
    assert sorted(files(tmp_path / 'two')) == ['pseudo_labels.json', 'u1.png', 'u4.png']
    assert summary['num_images'] == 2
    summary = pseudo_label(
        cfg, checkpoints[0], pool, str(tmp_path / 'none'), subset=[], **NO_WORKERS
    )
    assert sorted(files(tmp_path / 'none')) == ['pseudo_labels.json']
    assert (summary['num_images'], summary['pixels']) == (0, [0] * 4)


def test_a_finished_folder_is_left_as_it_is(cfg, checkpoints, pool, tmp_path, monkeypatch):
    out = str(tmp_path / 'out')
    summary = pseudo_label(cfg, checkpoints[0], pool, out, flip=False, scales=(1.0,), **NO_WORKERS)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    monkeypatch.setattr(labeling, 'Predictor', None)
    monkeypatch.setattr(ImagePool, 'plan', None)
    again = pseudo_label(cfg, checkpoints[0], pool, out, flip=False, scales=[1], **NO_WORKERS)
    assert again == summary
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == times


@pytest.mark.parametrize('batches', [0, 1, 3])
def test_killed_and_continued(cfg, checkpoints, pool, tmp_path, monkeypatch, killed_after, batches):
    settings = dict(scales=(0.5, 1.0), batch_size=2, **NO_WORKERS)
    whole = pseudo_label(cfg, checkpoints[0], pool, str(tmp_path / 'whole'), **settings)
    out = tmp_path / 'out'
    killed_after(batches)
    with pytest.raises(Killed):
        pseudo_label(cfg, checkpoints[0], pool, str(out), **settings)
    monkeypatch.undo()
    masks = {name for name in files(out) if name.endswith('.png')}
    assert len(masks) == min(7, [0, 2, 4, 5][batches])
    assert 'pseudo_labels.json' not in files(out)
    if masks:  # of the batch of two, one was not written; and something half-written is there
        torn = out / sorted(masks)[0]
        torn.rename(torn.with_name(f'.partial.{torn.name}'))
        torn.with_name(f'.partial.{torn.name}').write_bytes(b'half')
    kept = {name: (out / name).stat().st_mtime_ns for name in masks if (out / name).exists()}
    predicted = []
    plain = Predictor.prepare
    monkeypatch.setattr(
        Predictor,
        'prepare',
        lambda self, samples: predicted.append(len(samples)) or plain(self, samples),
    )
    assert pseudo_label(cfg, checkpoints[0], pool, str(out), **settings) == whole
    assert files(out) == files(tmp_path / 'whole')
    # A batch that was whole is not predicted again, and no mask that was there is written again.
    assert sum(predicted) == {0: 7, 1: 7, 3: 4}[batches]
    assert len(kept) == {0: 0, 1: 1, 3: 4}[batches]
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept


def test_another_number_of_images_at_once_may_continue(
    cfg, checkpoints, pool, tmp_path, killed_after, monkeypatch
):
    """As after a lack of memory."""
    settings = dict(scales=(1.0,), flip=False, **NO_WORKERS)
    killed_after(1)
    with pytest.raises(Killed):
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), batch_size=4, **settings)
    monkeypatch.undo()
    summary = pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), batch_size=1, **settings)
    assert summary['num_images'] == 7
    assert len(list(tmp_path.rglob('u*.png'))) == 7


def test_what_does_not_belong_to_a_folder_is_refused(cfg, checkpoints, pool, tmp_path):
    out, settings = tmp_path / 'out', dict(scales=(1.0,), flip=False, **NO_WORKERS)
    pseudo_label(cfg, checkpoints[0], pool, str(out), **settings)
    before = files(out)
    other = trained.config([trained.LOAD, dict(type='Resize', scale=(40, 40)), trained.PACK])
    for words, arguments, changed in (
        ('checkpoint_sha256=', (cfg, checkpoints[1], pool), {}),
        ('flip=false and not with true', (cfg, checkpoints[0], pool), dict(flip=True)),
        ('scales=', (cfg, checkpoints[0], pool), dict(scales=(0.5, 1.0))),
        ('images="7 from', (cfg, checkpoints[0], pool), dict(subset=['u1'])),
        ('pipeline=', (other, checkpoints[0], pool), {}),
    ):
        with pytest.raises(ValueError, match=f'was started with {words}'):
            pseudo_label(*arguments, str(out), **{**settings, **changed})
    assert files(out) == before
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'u1.png').write_bytes(b'mine')
    with pytest.raises(ValueError, match=r'own has other files, such as u1.png'):
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path / 'own'), **settings)
    assert files(tmp_path / 'own') == {'u1.png': b'mine'}


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(scales=()), r'^scales=\[\] must be'),
        (dict(scales=(1.0, 0.0)), r'^scales=\[1.0, 0.0\] must be'),
        (dict(batch_size=0), '^batch_size=0 must be'),
        (dict(threshold=1.0), r'^threshold must be in \[0, 1\), got 1\.0'),
        (dict(num_workers=-1), '^num_workers=-1 must be'),
        (dict(palette=[[0, 0, 0]]), '^palette has 1 colors for 4 classes'),
        (dict(subset=['x']), '^1 of 1 ids of the subset'),
    ],
)
def test_settings_out_of_range(cfg, checkpoints, pool, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), **{**NO_WORKERS, **setting})
    assert not list(tmp_path.rglob('*.png'))


def test_a_diverged_network_labels_nothing(cfg, checkpoints, pool, tmp_path):
    state = torch.load(checkpoints[0], weights_only=False)
    state['state_dict']['decode_head.conv_seg.bias'][:] = float('nan')
    torch.save(state, tmp_path / 'nan.pth')
    with pytest.raises(
        ValueError, match=r'nan.pth predicts values that are not finite for .*u0.png'
    ):
        pseudo_label(cfg, str(tmp_path / 'nan.pth'), pool, str(tmp_path / 'out'), **NO_WORKERS)
    assert not list((tmp_path / 'out').rglob('*.png'))


def test_an_image_that_cannot_be_read_ends_it_and_its_repaired_file_is_another_image(
    cfg, checkpoints, tmp_path
):
    config = trained.write_pool(tmp_path / 'pool', [(24, 32), (24, 32), (32, 24)])
    image = tmp_path / 'pool' / 'u2.png'
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2].ljust(len(content), b'x'))
    out, new = tmp_path / 'out', tmp_path / 'new'
    settings = dict(scales=(1.0,), flip=False, **NO_WORKERS)
    with pytest.raises(ValueError, match=r'u2.png is truncated'):
        pseudo_label(cfg, checkpoints[0], config, str(out), **settings)
    assert not (out / 'pseudo_labels.json').exists()
    image.write_bytes(content)
    with pytest.raises(ValueError, match=r'was started with images=.*Name another folder'):
        pseudo_label(cfg, checkpoints[0], config, str(out), **settings)
    assert pseudo_label(cfg, checkpoints[0], config, str(new), **settings)['num_images'] == 3


def test_true_masks_are_never_opened(cfg, checkpoints, tmp_path):
    trained.write_pool(tmp_path / 'pool', [(24, 32)] * 2)
    (tmp_path / 'truth').mkdir()  # in which the masks that the dataset names are not
    config = dict(
        type='BaseSegDataset',
        serialize_data=False,
        img_suffix='.png',
        data_prefix=dict(img_path=str(tmp_path / 'pool'), seg_map_path=str(tmp_path / 'truth')),
    )
    summary = pseudo_label(cfg, checkpoints[0], config, str(tmp_path / 'out'), **NO_WORKERS)
    assert summary['num_images'] == 2


def test_what_a_user_sees(cfg, checkpoints, pool, tmp_path, caplog, capsys):
    logger = logging.getLogger('seen')
    with caplog.at_level(logging.INFO, 'seen'):
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), logger=logger, **NO_WORKERS)
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), logger=logger, **NO_WORKERS)
    first, shares, *_, second = [
        record.getMessage() for record in caplog.records if record.name == 'seen'
    ]
    assert first.startswith('7 images pseudo-labeled in ')
    assert ' images per second, ' in first
    assert first.endswith('% of the time outside of the network.')
    assert re.fullmatch(r'shares of the pseudo-labels: (\S+ \d+\.\d\d %(, )?)+', shares)
    assert second == f'{tmp_path} has the pseudo-labels of 7 images already.'
    bar = capsys.readouterr().err
    assert 'pseudo-labels: 100%' in bar
    assert '7/7' in bar
    assert 'img/s' in bar


@pytest.mark.parametrize(
    ('pixels', 'said'),
    [
        (
            [9000, 1000, 0],
            ['a 90.00 %, b 10.00 %, c 0.00 %', '1 of 3 classes have fewer than 0.01 % .*: c. A'],
        ),
        ([0, 30000, 2], ['b 99.99 %, c 0.01 %, a 0.00 %', '2 of 3 classes .*: a, c. A']),
        ([1, 1, 9998], ['c 99.98 %, a 0.01 %, b 0.01 %']),
        ([0, 0, 0], ['All pixels of the pseudo-labels are void. Lower the threshold.']),
    ],
)
def test_classes_that_the_pseudo_labels_do_not_have_are_told(pixels, said, caplog):
    with caplog.at_level(logging.INFO, 'seen'):
        _report_shares(['a', 'b', 'c'], pixels, logging.getLogger('seen'))
    assert len(caplog.records) == len(said)
    for record, pattern in zip(caplog.records, said, strict=True):
        assert re.search(pattern, record.getMessage())
    assert caplog.records[-1].levelno == (
        logging.INFO if len(said) == 1 and sum(pixels) else logging.WARNING
    )


def test_the_network_is_gone_afterwards(cfg, checkpoints, pool, tmp_path, monkeypatch):
    networks = []
    build = Predictor.__init__

    def watched(self, *args):
        build(self, *args)
        networks.append(weakref.ref(self._network))

    monkeypatch.setattr(Predictor, '__init__', watched)
    gc.collect()
    gc.disable()
    try:
        pseudo_label(cfg, checkpoints[0], pool, str(tmp_path), **NO_WORKERS)
        assert [network() for network in networks] == [None]
    finally:
        gc.enable()
