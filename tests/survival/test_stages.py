"""ST and ST++ from the command line: whole, killed in each stage and resumed, on two ranks, by stock tools."""

import csv
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from processes import STOCK_TOOLS, TOOLS, run_tool
from tiny_run import dump, tiny_config, tiny_stages_config, write_images

from mmseg_semi.engine.runner.stages import stage_seed

STAGES = ('teacher', 'select', 'label_reliable', 'student', 'label_unreliable', 'final')
TRAININGS = ('teacher', 'student', 'final')
LAST = 'iter_14.pth'


def prepare(folder, runtime='stpp', **settings):
    """Write config.py, in which `flag.txt` arms what kills it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_stages_config(folder / 'work', runtime, **settings)
    config.work_dir = 'work'
    config.custom_imports.imports.append('saboteurs')
    config.test_dataloader.dataset.pipeline.insert(0, {'type': 'KillAtImage', 'flag': 'flag.txt'})
    for name, stage in config.stages.items():
        if stage.type in ('TrainStage', 'TeacherStage'):
            kill = {'type': 'KillHook', 'iteration': 9, 'flag': f'{name}.flag'}
            stage.extra_hooks = [*stage.get('extra_hooks', []), kill]
    dump(config, folder / 'config.py')
    return folder


def train(folder, *args, ranks=1, tool=TOOLS / 'train.py'):
    return run_tool(tool, 'config.py', *args, cwd=folder, ranks=ranks)


def weights(folder, stage):
    return torch.load(folder / 'work' / stage / LAST, weights_only=False)['state_dict']


def masks(folder, stage):
    """Bytes of every mask by its name."""
    root = folder / 'work' / stage
    # A kill may leave one that was being written.
    return {path.name: path.read_bytes() for path in sorted(root.glob('[!.]*.png'))}


def outcome(folder):
    """All that a run of ST++ makes and hands on."""
    found = {name: weights(folder, name) for name in TRAININGS}
    found['stability'] = [
        torch.load(folder / 'work/teacher/stability' / name, weights_only=False)['state_dict']
        for name in ('iter_4.pth', 'iter_9.pth', LAST)
    ]
    for name in ('scores.csv', 'reliable.txt', 'unreliable.txt'):
        found[name] = (folder / 'work/select' / name).read_text()
    for name in ('label_reliable', 'label_unreliable'):
        found[name] = masks(folder, name)
    return found


def differences(first, second, where=''):
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f'{where}: {first.keys() ^ second.keys()}']
        return [line for k in first for line in differences(first[k], second[k], f'{where}.{k}')]
    if isinstance(first, list):
        return [
            line
            for i, pair in enumerate(zip(first, second, strict=True))
            for line in differences(*pair, f'{where}[{i}]')
        ]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [where]


def marks(folder):
    return {
        name: json.loads((folder / 'work/stages' / f'{name}.json').read_text())['finished']
        for name in STAGES
        if (folder / 'work/stages' / f'{name}.json').is_file()
    }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder with an ST++ run of one process that nothing disturbed."""
    folder = prepare(tmp_path_factory.mktemp('whole'))
    result = train(folder)
    assert result.code == 0, result.output
    (folder / 'output.txt').write_text(result.output)
    return folder


def copy_of(whole, folder, *stages):
    """A folder in which only these stages have been run."""
    shutil.copytree(whole, folder)
    for name in set(STAGES) - set(stages):
        shutil.rmtree(folder / 'work' / name)
    return folder


# ------------------------------------------------------------------------------------ the whole run


def test_every_stage_leaves_its_result(whole):
    work = whole / 'work'
    assert all(marks(whole).values())
    assert list(marks(whole)) == list(STAGES)
    rows = list(csv.DictReader((work / 'select/scores.csv').open()))
    assert len(rows) == 9
    reliable, unreliable = (
        (work / f'select/{name}.txt').read_text().split() for name in ('reliable', 'unreliable')
    )
    assert (len(reliable), len(unreliable)) == (4, 5)
    assert {f'{name}.png' for name in reliable} == masks(whole, 'label_reliable').keys()
    assert {f'{name}.png' for name in unreliable} == masks(whole, 'label_unreliable').keys()
    scores = {row['id']: float(row['score']) for row in rows}
    assert min(scores[name] for name in reliable) >= max(scores[name] for name in unreliable)
    assert all(0 <= score <= 2 for score in scores.values())
    assert len(set(scores.values())) > 1
    for path in [
        *(work / 'label_reliable').glob('*.png'),
        *(work / 'label_unreliable').glob('*.png'),
    ]:
        label = np.array(Image.open(path))
        assert label.shape == (32, 32)
        assert label.max() < 6
    assert (work / 'last_checkpoint').read_text() == str(whole / 'work' / 'final' / LAST)


def test_networks_differ(whole):
    trained = [weights(whole, name)['decode_head.conv_seg.weight'] for name in TRAININGS]
    assert not torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[1], trained[2])


def test_log_says_what_is_trained_on_what(whole):
    output = (whole / 'output.txt').read_text()
    lists = re.findall(r'(\d+) labeled images × (\d+) and (\d+) pseudo-labeled', output)
    assert lists == [('5', '2', '0'), ('5', '1', '4'), ('5', '2', '9')]
    # Batches of 4; 4 of 9 and 9 of 19 images of a list have pseudo-labels.
    assert (
        'Trained: teacher 14 steps (56 labeled and 0 unlabeled images), student 14 steps (31 labeled and 25 '
        'unlabeled images), final 14 steps (29 labeled and 27 unlabeled images)'
    ) in output
    assert f'student: seed {stage_seed(3, "student")}, which decides its initialization' in output
    assert 'label_reliable: labeling with the last checkpoint of teacher, ' in output
    assert 'label_unreliable: labeling with the last checkpoint of student, ' in output
    assert 'The result is the last checkpoint of stage final' in output


def test_st_is_three_stages(tmp_path):
    folder = prepare(tmp_path, 'st')
    result = train(folder)
    assert result.code == 0, result.output
    assert len(masks(folder, 'label')) == 9
    assert '5 labeled images × 2 and 9 pseudo-labeled' in result.output
    assert not (folder / 'work/select').exists()


@pytest.mark.slow
def test_third_retraining_labels_everything_again(tmp_path):
    folder = prepare(tmp_path, 'stpp_retrain3')
    result = train(folder)
    assert result.code == 0, result.output
    assert len(masks(folder, 'label_all')) == 9
    assert (folder / 'work/last_checkpoint').read_text() == str(tmp_path / 'work/retrain3' / LAST)


def test_one_unlabeled_image_leaves_the_reliable_half_empty(tmp_path):
    """METHODS 2.6: the second training is then on the labeled images alone."""
    images = write_images(tmp_path / 'data')
    (images / 'unlabeled.txt').write_text('000007\n')
    folder = prepare(tmp_path / 'run', images=images)
    result = train(folder)
    assert result.code == 0, result.output
    assert (folder / 'work/select/reliable.txt').read_text() == ''
    lists = re.findall(r'(\d+) labeled images × (\d+) and (\d+) pseudo-labeled', result.output)
    assert lists == [('5', '2', '0'), ('5', '1', '0'), ('5', '1', '1')]
    assert masks(folder, 'label_reliable') == {}
    assert list(masks(folder, 'label_unreliable')) == ['000007.png']


def test_best_checkpoint_labels_where_the_config_says_so(tmp_path):
    settings = {
        'default_hooks__checkpoint__save_best': 'mIoU',
        'stages__label__checkpoint': 'best',
    }
    folder = prepare(tmp_path, 'st', **settings)
    result = train(folder)
    assert result.code == 0, result.output
    (best,) = (folder / 'work/teacher').glob('best_mIoU_iter_*.pth')
    assert f'label: labeling with the best checkpoint of teacher, {best.relative_to(folder)}' in (
        result.output
    )
    summary = json.loads((folder / 'work/label/pseudo_labels.json').read_text())
    assert hashlib.sha256(best.read_bytes()).hexdigest() in json.dumps(summary)


# ------------------------------------------------------------------------------------ kill and resume


BY_EPOCH = {
    'train_cfg': {
        '_delete_': True,
        'type': 'EpochBasedTrainLoop',
        'max_epochs': 3,
        'val_interval': 1,
    },
    'train_dataloader__sampler__endless': False,
    'train_dataloader__drop_last': True,
    'default_hooks__checkpoint__by_epoch': True,
    'default_hooks__checkpoint__interval': 1,
    'param_scheduler': [
        {'type': 'NonzeroPolyLR', 'eta_min': 0, 'power': 0.9, 'convert_to_iter_based': True}
    ],
}


def test_epochs_follow_each_list_and_resume(tmp_path):
    """Lists of 10, 9 and 19 images in batches of 4: epochs of 2, 2 and 4 iterations."""
    folders = [prepare(tmp_path / name, **BY_EPOCH) for name in ('whole', 'killed')]
    result = train(folders[0])
    assert result.code == 0, result.output
    for name, iterations in (('teacher', 6), ('student', 6), ('final', 12)):
        checkpoint = torch.load(folders[0] / f'work/{name}/epoch_3.pth', weights_only=False)
        assert checkpoint['meta']['iter'] == iterations
        assert checkpoint['param_schedulers'][0]['end'] == iterations
    assert len(list(folders[0].glob('work/teacher/stability/epoch_*.pth'))) == 3
    (folders[1] / 'final.flag').touch()  # dies in the third of the epochs
    assert train(folders[1]).code == -9
    (folders[1] / 'final.flag').unlink()
    result = train(folders[1])
    assert result.code == 0, result.output
    assert 'resumed epoch: 2, iter: 8' in result.output
    ends = [
        torch.load(folder / 'work/final/epoch_3.pth', weights_only=False)['state_dict']
        for folder in folders
    ]
    assert differences(*ends) == []


@pytest.mark.parametrize('stage', TRAININGS)
def test_killed_in_a_training(stage, whole, tmp_path):
    before = STAGES[: STAGES.index(stage)]
    folder = copy_of(whole, tmp_path / 'killed', *before)
    flag = folder / f'{stage}.flag'
    flag.touch()
    result = train(folder)
    assert result.code == -9, result.output
    flag.unlink()
    result = train(folder, '--resume')
    assert result.code == 0, result.output
    assert 'resumed epoch: 0, iter: 5' in result.output
    for name in before:
        assert f'Stage {name} is finished' in result.output
    assert differences(outcome(whole), outcome(folder)) == []


@pytest.mark.parametrize('stage', ['select', 'label_reliable', 'label_unreliable'])
def test_killed_between_images(stage, whole, tmp_path):
    before = STAGES[: STAGES.index(stage)]
    folder = copy_of(whole, tmp_path / 'killed', *before)
    half = 'unreliable' if stage == 'label_unreliable' else 'reliable'
    ids = (whole / f'work/select/{half}.txt').read_text().split()
    # The last image of the stage, so that others have been done.
    image = sorted(ids)[-1] if stage != 'select' else '000013'
    (folder / 'flag.txt').write_text(f'{stage} {image}')
    result = train(folder)
    assert result.code == -9, result.output
    done = masks(folder, stage) if stage != 'select' else {}
    assert marks(folder)[stage] is None
    (folder / 'flag.txt').unlink()
    times = {name: os.stat(folder / 'work' / stage / name).st_mtime_ns for name in done}
    result = train(folder)
    assert result.code == 0, result.output
    assert differences(outcome(whole), outcome(folder)) == []
    for name, time in times.items():
        assert os.stat(folder / 'work' / stage / name).st_mtime_ns == time


def test_a_moved_folder_is_resumed(whole, tmp_path):
    """MMEngine's pointers hold the place that the folder had."""
    folder = copy_of(whole, tmp_path / 'here', *STAGES[:5])
    (folder / 'final.flag').touch()
    assert train(folder).code == -9
    (folder / 'final.flag').unlink()
    moved = folder.rename(tmp_path / 'there')
    result = train(moved)
    assert result.code == 0, result.output
    assert 'resumed epoch: 0, iter: 5' in result.output
    assert differences(weights(whole, 'final'), weights(moved, 'final')) == []


def test_a_stage_whose_folder_was_removed_is_made_again(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'again', *STAGES)
    shutil.rmtree(folder / 'work/final')
    mark = folder / 'work/stages/final.json'
    before = json.loads(mark.read_text())
    (folder / 'final.flag').touch()
    assert train(folder).code == -9
    # It is not the finished stage that the mark told of.
    assert before['finished'] is not None
    assert json.loads(mark.read_text())['finished'] is None


def test_disk_full_in_a_training(tmp_path):
    folder = prepare(tmp_path)
    code = (
        'import resource, runpy, signal, sys\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n'
        f'sys.argv = [{str(TOOLS / "train.py")!r}, "config.py"]\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
    )
    (folder / 'limited.py').write_text(code)
    result = run_tool(folder / 'limited.py', cwd=folder)
    assert result.code == 1
    assert re.search(
        r'error: The checkpoint .*stability.iter_4\.pth cannot be written \(File too large\). Free space',
        result.last_line,
    )
    assert 'Traceback' not in result.output
    assert 'File too large' in next((folder / 'work/stages').glob('*.log')).read_text()
    result = train(folder)
    assert result.code == 0, result.output


def test_finished_run_does_nothing_again(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'again', *STAGES)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob('work/*/*.p*')}
    assert len(files) > 15
    result = train(folder)
    assert result.code == 0, result.output
    assert result.output.count('is finished') == 6
    assert files == {path: path.stat().st_mtime_ns for path in files}


# ------------------------------------------------------------------------------- some stages, other settings


def test_some_stages(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'some', 'teacher')
    result = train(folder, '--stages', 'select', 'label_reliable')
    assert result.code == 0, result.output
    assert list(masks(folder, 'label_reliable').values()) == list(
        masks(whole, 'label_reliable').values()
    )
    assert not (folder / 'work/student').exists()
    assert 'The result is' not in result.output


@pytest.mark.parametrize(
    ('stages', 'sentence'),
    [
        (
            ['final'],
            r'Stage final needs the result of label_reliable, which is not finished. Run it first',
        ),
        (['selection'], r"There is no stage 'selection'. Choose one of teacher, select, "),
    ],
)
def test_stages_that_cannot_run(stages, sentence, whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', 'teacher')
    result = train(folder, '--stages', *stages)
    assert result.code == 1
    assert re.search(sentence, result.last_line)
    assert 'Traceback' not in result.output


def test_other_settings_are_refused_and_nothing_is_touched(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES)
    result = train(folder, '--cfg-options', 'optim_wrapper.optimizer.lr=0.1')
    assert result.code == 1
    assert re.search(
        r'Stage teacher was started with optim_wrapper\.optimizer\.lr=0\.005, but this run has 0\.1. '
        r'Use another --work-dir, or remove work/teacher',
        result.last_line,
    )
    assert differences(outcome(whole), outcome(folder)) == []


def test_other_settings_of_an_earlier_stage_are_refused(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES[:3])
    option = 'train_dataloader.dataset.labeled.num_images=3'
    result = train(folder, '--stages', 'student', '--cfg-options', option)
    assert result.code == 1
    assert re.search(
        r'Stage teacher was started with train_dataloader\.dataset\.labeled\.num_images=5',
        result.last_line,
    )
    assert not (folder / 'work/student').exists()


def test_another_test_pipeline_is_refused(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES)
    result = train(folder, '--cfg-options', 'test_dataloader.dataset.pipeline.1.cache=False')
    assert result.code == 1
    assert 'Stage select was started with pipeline=' in result.last_line


def test_another_number_of_processes_is_reported(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES)
    result = train(folder, ranks=2)
    assert result.code == 0, result.output
    assert 'Stage teacher was started on 1 process(es), but this run has 2' in result.output


def test_other_speed_is_accepted(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES)
    options = (
        'train_dataloader.num_workers=1',
        'stages.select.batch_size=2',
        'train_dataloader.dataset.check_files=False',
    )
    assert train(folder, '--cfg-options', *options).code == 0


def test_results_of_another_run_are_refused(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'run', *STAGES)
    shutil.rmtree(folder / 'work/teacher')
    result = train(folder)
    assert result.code == 1
    assert 'Stage select was started with an earlier result of teacher' in result.last_line


# ------------------------------------------------------------------------------------ ranks and stock tools


def test_two_ranks_give_the_same_lists_and_labels(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'two', 'teacher')
    result = train(folder, '--stages', 'select', 'label_reliable', ranks=2)
    assert result.code == 0, result.output
    for name in ('scores.csv', 'reliable.txt', 'unreliable.txt'):
        ours, theirs = (root / 'work/select' / name for root in (folder, whole))
        assert ours.read_text() == theirs.read_text()
    assert masks(folder, 'label_reliable') == masks(whole, 'label_reliable')


@pytest.mark.slow
def test_whole_run_on_two_ranks(tmp_path):
    folder = prepare(tmp_path, train_dataloader__batch_size=2)
    result = train(folder, ranks=2)
    assert result.code == 0, result.output
    assert all(marks(folder).values())
    assert len(marks(folder)) == 6


def test_stock_tools(whole, tmp_path):
    folder = copy_of(whole, tmp_path / 'stock', *STAGES[:5])
    result = train(folder, '--work-dir', 'work', tool=STOCK_TOOLS / 'train.py')
    assert result.code == 0, result.output
    assert differences(weights(whole, 'final'), weights(folder, 'final')) == []
    tested = [
        run_tool(tool, 'config.py', f'work/{stage}/{LAST}', cwd=folder)
        for tool in (STOCK_TOOLS / 'test.py', TOOLS / 'test.py')
        for stage in ('teacher', 'final')
    ]
    figures = [re.findall(r'mIoU: ([\d.]+)', result.output)[-1] for result in tested]
    assert figures[:2] == figures[2:]
    plain = torch.load(folder / 'work/final' / LAST, weights_only=False)['state_dict']
    assert not [key for key in plain if key.startswith(('student', 'teacher'))]


# ------------------------------------------------------------------------------------ said before it costs time


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (
            ['train_dataloader.dataset.pseudo_labeled.images.ann_file=val.txt'],
            r'4 unlabeled images are also validation images',
        ),
        (
            ['train_dataloader.dataset.pseudo_labeled.images.img_dir=nowhere'],
            r'nowhere \(from img_dir\) does not exist',
        ),
        (['stages.select.ratio=1'], r'stages\.select\.ratio=1 leaves one of the two halves empty'),
        (
            ['stages.select.model=student'],
            r'The stages depend on each other in a cycle, label_reliable → select → student → label_r',
        ),
        (
            ['stages.select.modle=student'],
            r"stages\.select has wrong settings for SelectStage .*'modle'",
        ),
        (
            ['stages.select.type=Select'],
            r"stages\.select\.type='Select' is not a stage. Use one of Label",
        ),
        (
            ['stages.teacher.extra_hooks=[]'],
            r'ranks images by checkpoints of teacher, which saves none',
        ),
        (
            ['stages.label_reliable.checkpoint=best'],
            r"label_reliable\.checkpoint='best', but no best checkpoint is saved. Set default_hooks",
        ),
        (
            ['stages.label_reliable.subset=stage://choose/x.txt'],
            r"stages\.label_reliable\.stage='choose' is not a Stage of this config. Set it to one",
        ),
        (['test_dataloader=None'], r'The config has no test_dataloader\.dataset\.pipeline'),
        (
            ['model.decode_head.out_channels=1'],
            r'stages\.select cannot label with decode_head\.out_channels=1. Set out_channels=num_classes',
        ),
        (
            ['stages.student.cfg.train_dataloader.dataset.pseudo_labeled.labels=None'],
            r'stages\.student has no pseudo-labels to train on',
        ),
        (
            ['stages.label_reliable.subset=own.txt'],
            r"subset='own\.txt' does not exist. Give a file",
        ),
        (['train_cfg.max_iters=2'], r'A training of 2 iter\(s\) has no 3 different checkpoints'),
    ],
)
def test_what_cannot_work_is_said_at_once(options, sentence, tmp_path):
    images = write_images(tmp_path / 'data')
    folder = prepare(tmp_path / 'run', images=images)
    result = train(folder, '--cfg-options', *options)
    assert result.code == 1, result.output
    assert re.search(sentence, result.last_line), result.last_line
    assert 'Traceback' not in result.output
    assert not list(folder.rglob('*.pth'))


def test_a_gray_unlabeled_image_is_said_at_once(tmp_path):
    images = write_images(tmp_path / 'data')
    folder = prepare(tmp_path / 'run', images=images)
    path = images / 'img_dir/000009.png'
    Image.open(path).convert('L').save(path)
    result = train(folder)
    assert result.code == 1
    assert re.search(r'000009\.png is gray \(mode L\), not 8-bit RGB', result.last_line)
    assert not list(folder.rglob('*.pth'))


def test_stages_of_a_config_without(tmp_path):
    dump(tiny_config(tmp_path / 'work', None), tmp_path / 'config.py')
    result = train(tmp_path, '--stages', 'teacher')
    assert result.code == 1
    assert 'config.py trains once and has no stages. Leave --stages out' in result.last_line
