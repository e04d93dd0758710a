"""Every published figure is trained for by a config that exists, for as long as its paper says."""

import csv
import json
import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_semi.comparison.configs import NAME
from mmseg_semi.comparison.published import find_published, published_table, read_published
from mmseg_semi.datasets.partition import fill_partition, numbered
from mmseg_semi.engine.runner.stages import build_stages
from mmseg_semi.engine.train_loops import epoch_lengths, epochs_of

ROOT = Path(__file__).resolve().parents[2]
ROWS = read_published()
#: Training images, and images of a step over all GPUs that an epoch is counted by.
TOTAL = {'VOC': 10582, 'Cityscapes': 2975}
STEP = {
    8: ('ESL', 'GPS', 'CPS', 'UniMatchCorrMatch', 'PrevMatchUniMatch'),
    16: ('iMAS', 'DeS4', 'U2PL'),
}
DATASETS = {'VOC': 'voc12', 'Cityscapes': 'cityscapes'}
init_default_scope('mmseg')


@cache
def plain(config):
    return Config.fromfile(ROOT / 'configs' / config, format_python_code=False)


def parents(key):
    return key.rpartition('.')[0]


@pytest.mark.slow
def test_every_row_resolves():
    """Options name settings that exist, lists are filled, and epochs are the row's."""
    seen = {}
    for row in ROWS:
        assert row.dataset in TOTAL
        assert NAME.fullmatch(Path(row.config).name)['dataset'] == DATASETS[row.dataset]
        if (row.config, row.options) not in seen:
            seen[row.config, row.options] = cfg = row.load()
            for option in row.settings:
                key = option.partition('=')[0]
                place = plain(row.config)
                for part in filter(None, parents(key).split('.')):
                    if part == 'semi_train_cfg' or 'semi_train_cfg' in key.split('.'):
                        break  # which the method's own declaration checks
                    if part in ('cfg', 'train_dataloader') and key.startswith('stages.'):
                        break  # merged into the top level
                    place = place[int(part)] if isinstance(place, list) else place[part]
            method = MODELS.get(cfg.model.type)
            if hasattr(method, 'Settings'):
                method.Settings(cfg.model.get('semi_train_cfg'))
            if cfg.get('stages'):
                for stage in build_stages(cfg).values():
                    stage.check()
        cfg = seen[row.config, row.options]
        dataset = cfg.train_dataloader.dataset
        if row.partition != 'trainaug':
            dataset.partition = row.partition
        assert '{partition}' not in str(fill_partition(dataset))
        epochs = cfg.train_cfg.get('epochs', cfg.train_cfg.get('max_epochs'))
        assert epochs_of(epochs, row.partition) == row.epochs


def test_arithmetic_of_the_figures():
    assert len({row._replace(figure=0, source='') for row in ROWS}) == len(ROWS), 'a row is twice'
    for row in ROWS:
        assert 40 < row.figure < 95
        assert row.metric == 'mIoU'
        assert (numbered(row.partition) is None) == (row.partition == 'trainaug')
    # Steps of the papers: passes over the unlabeled images in whole batches.
    for row in ROWS:
        method = row.method.partition(':')[0].removesuffix(' ablation')
        step = next((n for n, names in STEP.items() if method in names), None)
        if step is None or row.source.startswith('ST++'):
            continue
        loader = plain(row.config).train_dataloader
        gpus = int(NAME.fullmatch(Path(row.config).name)['schedule'].partition('x')[0])
        share = loader.sampler.unlabeled // loader.sampler.get('unlabeled_streams', 1)
        assert gpus * share == step, row
        unlabeled = TOTAL[row.dataset] - numbered(row.partition)
        lengths = epoch_lengths(unlabeled, step, 1, row.epochs, 1)
        assert lengths.max_iters == row.epochs * (unlabeled // step)
    by_row = {(row.method, row.partition): row.figure for row in ROWS}
    # 80 epochs of 10399 images, 16 per step, as docs/configs.md says; differences that the papers print.
    assert epoch_lengths(10399, 16, 1, 80, 1).max_iters == 51920
    soft, hard = (
        by_row[f'ESL ablation: {name}', 'classic/1464']
        for name in ('dynamic soft label', 'hard label')
    )
    assert soft - hard == pytest.approx(2.09)
    best = by_row['DeS4 ablation: pixel re-weighting', 'blender-u2pl/1323']
    assert best == by_row['DeS4 ablation: multi-entropy sampling', 'blender-u2pl/1323']
    assert best == by_row['DeS4', 'blender-u2pl/1323']
    assert by_row['iMAS ablation: all', 'blender-cps/1323'] == 77.9


def test_the_page_has_the_table_that_the_tool_prints():
    text = (ROOT / 'docs' / 'configs.md').read_text(encoding='utf-8')
    said = re.search(r'<!-- published -->\n(.*?)\n<!-- end of published -->', text, re.DOTALL)[1]
    assert said == published_table(ROWS), 'paste what `python tools/reproduce.py --table` prints'


def test_words_find_figures():
    found = find_published(['iMAS VOC', 'classic', '183'], ROWS)
    assert [row.figure for row in found] == [74.4, 75.3, 74.4, 57.5, 63.5]
    assert {row.partition for row in found} == {'classic/183'}
    assert found[0].config.startswith('imas/imas-official_deeplabv3plus_r101s-d16')
    assert found[0].command == (
        f'bash tools/dist_train.sh configs/{found[0].config} 4 --work-dir {found[0].work_dir} --cfg-options '
        'train_dataloader.dataset.partition=classic/183'
    )
    assert {row.network for row in find_published(['gps', 'r101', '1323'], ROWS)} == {'ResNet-101'}
    assert find_published(['iMAS', '18'], ROWS) == []


def test_no_two_figures_share_a_folder():
    folders = {}
    for row in ROWS:
        folders.setdefault(row.work_dir, set()).add((row.config, row.options, row.partition))
    assert all(len(runs) == 1 for runs in folders.values())


@pytest.mark.parametrize('stage', ['', 'final'])
def test_what_was_measured_stands_beside_it(tmp_path, stage):
    words = ['ST++', 'VOC', 'classic', '92', 'Table'] if stage else ['DeS4', 'VOC', 'classic', '92']
    row = next(
        row for row in find_published(words, ROWS) if row.method == ('ST++' if stage else 'DeS4')
    )
    with pytest.raises(ValueError, match=r'has no mIoU yet\. Run the command'):
        row.measured(tmp_path)
    log = tmp_path / stage / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    name = 'mIoU' if stage else 'teacher/mIoU'
    records = [{name: value, 'step': step} for step, value in ((8, 66.5), (16, 68.25), (24, 67.0))]
    (log / 'scalars.json').write_text(''.join(f'{json.dumps(one)}\n' for one in records))
    step, scores = row.measured(tmp_path)
    (score,) = scores.values()
    assert (step, score.last, score.best, score.best_iteration) == (24, 67.0, 68.25, 16)


def test_old_names_lead_to_configs_that_exist():
    with (ROOT / 'configs' / 'renamed.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    names = [Path(row['old']).name for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        assert not (ROOT / 'configs' / row['old']).exists()
        assert (ROOT / 'configs' / row['config']).is_file()
        options = dict(option.split('=') for option in row['options'].split())
        assert all(re.fullmatch(r'[\w./-]+', value) for value in options.values())
        for key in options:
            assert re.match(r'(train_dataloader\.dataset|model)\.', key)
