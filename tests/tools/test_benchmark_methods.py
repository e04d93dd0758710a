"""tools/benchmark_methods.py on trainings of 14 iterations: what it runs, resumes, refuses and reports."""

import csv
import fcntl
import importlib.util
import json
import re
import statistics
import sys
from pathlib import Path

import processes
import pytest
from mmengine.config import Config
from PIL import Image
from processes import TOOLS
from tiny_run import dump, tiny_config, tiny_stages_config

from mmseg_semi.comparison import benchmark, jobs

ITERS = 14


class Forked:
    """A process of the tests' fork server with what the tool asks of a subprocess."""

    def __init__(self, tool, args, output):
        environment = processes.ENVIRONMENT
        arguments = (tool, args, str(Path(output.name).parent), output.name, environment)
        self._process = processes.fork_server().Process(target=processes._execute, args=arguments)
        self._process.start()
        self.terminate = self._process.terminate

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()


@pytest.fixture
def tool(monkeypatch):
    """The module, whose trainings are forks instead of processes that import everything again."""
    spec = importlib.util.spec_from_file_location(
        'benchmark_methods', TOOLS / 'benchmark_methods.py'
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'benchmark_methods', module)
    spec.loader.exec_module(module)
    # A test's process is not the tool's: its reaction to signals stays.
    monkeypatch.setattr(module.signal, 'signal', lambda *args: None)
    module.launched = []

    def launch(command, output, environment, lock):
        module.launched.append(command)
        assert command[0] == sys.executable
        return Forked(command[1], command[2:], output)

    monkeypatch.setattr(benchmark, 'launch', launch)
    return module


@pytest.fixture
def folder(tmp_path):
    """Configs of a supervised training and of iMAS, which a file kills after a checkpoint."""
    for name, method in (('plain', None), ('imas', 'IMAS')):
        config = tiny_config(Path('unused'), method)
        config.custom_imports.imports.append('saboteurs')
        flag = str(tmp_path / f'{name}.flag')
        config.custom_hooks.append({'type': 'KillHook', 'iteration': 12, 'flag': flag})
        dump(config, tmp_path / f'{name}.py')
    return tmp_path


def arguments(folder, *more, methods=('suponly=plain.py', 'imas.py')):
    named = []
    for method in methods:
        label, _, file = method.rpartition('=')
        named.append(f'{label}={folder / file}' if label else str(folder / file))
    return ['--methods', *named, '--work-dir', str(folder / 'work'), *more]


def run(tool, folder, *more, **kwargs):
    """Exit code or message, None for success."""
    try:
        tool.main(arguments(folder, *more, **kwargs))
    except SystemExit as error:
        return error.code


def lines_of(folder):
    with (folder / 'work' / 'results.csv').open() as file:
        return list(csv.DictReader(file))


def logged(folder, key):
    """A metric by iteration as the log has it, read in another way than the package does."""
    text = ''.join(p.read_text() for p in sorted(folder.glob('*/vis_data/scalars.json')))
    found = {}
    for record in map(json.loads, text.split('\n')[:-1]):
        if key in record:
            found[record['step']] = record[key]
    return found


def cells(folder, name):
    """The cells of a row of the table."""
    text = (folder / 'work' / 'results.md').read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f'| {name} |')]
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_table_csv_and_plot_say_what_the_runs_logged(tool, folder, capsys):
    assert run(tool, folder, '--seeds', '0', '1', '--val-interval', '4') is None
    work = folder / 'work'
    order = [Path(command[2]).stem for command in tool.launched]
    assert order == ['suponly_seed0', 'imas_seed0', 'suponly_seed1', 'imas_seed1']
    last = {}
    for method, network, key in (
        ('suponly', '', 'mIoU'),
        ('imas', 'student', 'student/mIoU'),
        ('imas', 'teacher', 'teacher/mIoU'),
    ):
        for seed in (0, 1):
            values = logged(work / f'{method}_seed{seed}', key)
            assert sorted(values) == [4, 8, 12, ITERS]
            last[method, network, seed] = values[ITERS]
            (line,) = [
                line
                for line in lines_of(folder)
                if (line['method'], line['network'], line['seed']) == (method, network, str(seed))
            ]
            best = max(values.values())
            assert float(line['mIoU_last']) == pytest.approx(values[ITERS], abs=1e-4)
            assert float(line['mIoU_best']) == pytest.approx(best, abs=1e-4)
            assert values[int(line['best_iteration'])] == best
            assert line['status'] == 'finished'
    assert len(lines_of(folder)) == 6
    for name, key in (('suponly', ('suponly', '')), ('imas, teacher', ('imas', 'teacher'))):
        values = [last[(*key, seed)] for seed in (0, 1)]
        gains = [value - last['suponly', '', seed] for seed, value in enumerate(values)]
        row = cells(folder, name)
        assert row[1] == f'{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}'
        assert row[3] == f'{statistics.fmean(gains):+.2f}'
    # Seeds draw the images too: two seeds of one network never agree to all digits.
    assert last['suponly', '', 0] != last['suponly', '', 1]
    # 2 labeled images in each of 14 iterations, and 2 without labels.
    assert cells(folder, 'suponly')[6:] == ['14', '28', '0', '-']
    assert cells(folder, 'imas, student')[6:] == ['14', '28', '28', '-']
    costs = json.loads((work / 'imas_seed0' / 'costs.json').read_text())
    assert costs['timed_iterations'] == 13
    assert costs['memory_kind'] == 'resident'
    assert 50 < costs['peak_memory_mib'] < 10000
    other = json.loads((work / 'imas_seed1' / 'costs.json').read_text())
    middle = statistics.median(c['seconds_per_iteration'] for c in (costs, other))
    assert cells(folder, 'imas, student')[4] == f'{middle:.3f}'
    assert Image.open(work / 'results.png').size[0] > 500
    config = (work / 'imas_seed1.py').read_text()
    assert "'seed': 1" in config or 'seed=1' in config

    # Again: nothing is run, and the table is the same.
    table = (work / 'results.md').read_text()
    tool.launched.clear()
    assert run(tool, folder, '--seeds', '0', '1', '--val-interval', '4') is None
    assert tool.launched == []
    assert (work / 'results.md').read_text() == table
    assert table.rstrip() in capsys.readouterr().out

    # With another setting a finished run is not what is asked for.
    message = run(
        tool,
        folder,
        *('--seeds', '0', '1', '--val-interval', '4'),
        *('--method-options', 'imas', 'model.semi_train_cfg.tau=0.5'),
    )
    assert (
        'imas_seed0 was run with model.semi_train_cfg.tau=0.3 and is now to be run with' in message
    )
    assert tool.launched == []


def test_killed_run_is_reported_and_resumed_to_the_same_result(tool, folder):
    (folder / 'imas.flag').touch()
    message = run(tool, folder)
    assert 'error: 1 of 2 runs are not finished: imas_seed0.' in message
    states = {line['method']: (line['status'], line['error']) for line in lines_of(folder)}
    assert states['suponly'][0] == 'finished'
    assert states['imas'][0] == 'failed'
    assert states['imas'][1].startswith('ended by SIGKILL: ')
    assert cells(folder, 'imas')[1] == 'failed'

    (folder / 'imas.flag').unlink()
    tool.launched.clear()
    assert run(tool, folder) is None
    (command,) = tool.launched
    assert '--resume' in command
    assert 'imas_seed0' in command[2]
    resumed = [line['mIoU_last'] for line in lines_of(folder)]

    (folder / 'work').rename(folder / 'killed')
    assert run(tool, folder) is None
    assert [line['mIoU_last'] for line in lines_of(folder)] == resumed
    # Times of before the kill are known, too.
    costs = json.loads((folder / 'killed' / 'imas_seed0' / 'costs.json').read_text())
    assert costs['timed_iterations'] == 13


def test_validations_that_a_kill_prevented_are_made_after_it(tool, folder):
    """Also the one after the last iteration, which leaves nothing to train; and the best stays the best."""
    given = ['--val-interval', '5']
    config = Config.fromfile(folder / 'imas.py')
    config.default_hooks.checkpoint.update(type='CheckpointHook', save_best='teacher/mIoU')
    # Killed when 10 and 14 iterations are done and saved.
    for done in (10, ITERS):
        kill = {'type': 'KillHook', 'iteration': done + 1, 'stage': 'before_val'}
        config.custom_hooks.append({**kill, 'flag': str(folder / f'kill{done}')})
    dump(config, folder / 'imas.py')
    for done in (10, ITERS):
        (folder / f'kill{done}').touch()
        assert 'runs are not finished: imas_seed0.' in run(
            tool, folder, *given, methods=['imas.py']
        )
        (folder / f'kill{done}').unlink()
    assert run(tool, folder, *given, methods=['imas.py']) is None
    resumed, work = lines_of(folder), folder / 'work' / 'imas_seed0'
    assert sorted(logged(work, 'teacher/mIoU')) == [5, 10, ITERS]
    best = [path.name for path in work.glob('best_*')]

    (folder / 'work').rename(folder / 'killed')
    assert run(tool, folder, *given, methods=['imas.py']) is None
    for got, expected in zip(resumed, lines_of(folder), strict=True):
        for key in ('network', 'mIoU_last', 'mIoU_best', 'best_iteration'):
            assert got[key] == expected[key]
    assert [path.name for path in work.glob('best_*')] == best


def test_failing_method_does_not_stop_the_others(tool, folder, capsys):
    message = run(
        tool,
        folder,
        *('--method-options', 'bad', 'train_dataloader.batch_size=3'),
        methods=('bad=imas.py', 'suponly=plain.py'),
    )
    assert 'error: 1 of 2 runs are not finished: bad_seed0.' in message
    states = {line['method']: line for line in lines_of(folder)}
    assert states['suponly']['status'] == 'finished'
    assert 'labeled=2 + unlabeled=2. Set batch_size to 4' in states['bad']['error']
    assert 'labeled=2 + unlabeled=2. Set batch_size to 4' in capsys.readouterr().err
    assert '- bad, seed 0, failed: exit code 1: ' in (folder / 'work' / 'results.md').read_text()


def test_method_in_stages_has_the_row_of_its_last_training(tool, folder):
    config = tiny_stages_config(Path('unused'), 'st')
    dump(config, folder / 'st.py')
    assert run(tool, folder, methods=('suponly=plain.py', 'st.py')) is None
    row = cells(folder, 'st')
    last = logged(folder / 'work' / 'st_seed0' / 'student', 'mIoU')
    assert row[1] == f'{last[ITERS]:.2f}'
    assert row[6] == 'teacher 14 + student 14'
    # 4 images per step: all labeled in the first training; 5 · 2 labeled and 9 others in the second's list.
    student = (round(56 * 10 / 19), round(56 * 9 / 19))
    assert row[7:9] == [f'teacher 56 + student {student[0]}', f'teacher 0 + student {student[1]}']
    assert row[9] == 'trainings beforehand, labeled images per step'
    said = (folder / 'work' / 'results.md').read_text()
    assert 'st differs in trainings beforehand: teacher 14 steps of 4 images, not none; ' in said
    assert 'labeled images per step: 2.11, not 2.0.' in said
    assert '- st trains for 28 optimizer steps in all: teacher 14 steps (56 labeled and 0 ' in said


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ('train_cfg.max_iters=7', r'imas differs .* in steps \(7, not 14\)'),
        (
            'train_dataloader.dataset.labeled.num_images=4',
            r'in labeled images \(4, not 5, 4 of them the same\)',
        ),
        (
            'val_dataloader.dataset.start=2',
            r'in validation images \(4, not 4, 0 of them the same\)',
        ),
        (
            'model.segmentor.test_cfg.mode=slide',
            r'in test_cfg \(mode: slide, not whole\)',
        ),
        (
            'val_dataloader.dataset.pipeline.1.meta_keys=(img_path)',
            r'in validation pipeline \(1.meta_keys: .*img_path.*, not nothing\)',
        ),
        (
            'val_evaluator.iou_metrics=[mIoU,mDice]',
            r'in metric \(iou_metrics.1: mDice, not nothing\)',
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_or_told(tool, folder, options, says):
    different = ['--report', '--method-options', 'imas', options]
    message = run(tool, folder, *different)
    assert re.search(says, message)
    assert not (folder / 'work').exists()
    run(tool, folder, *different, '--allow-differences')
    name, how = re.search(r' in ([a-z_ ]+) \((.*)\), so that', message).groups()
    told = (folder / 'work' / 'results.md').read_text()
    assert f'- imas differs in {name}: {how}' in told
    assert tool.launched == []


def test_other_networks_and_crops_are_told(tool, folder):
    run(
        tool,
        folder,
        '--report',
        *('--method-options', 'imas', 'model.segmentor.decode_head.channels=12'),
        *(
            '--method-options',
            'imas',
            'train_dataloader.dataset.labeled.pipeline.2.crop_size=(24,24)',
        ),
    )
    told = (folder / 'work' / 'results.md').read_text()
    assert 'crop: 0.0: 24, not 32' in told
    assert 'network: decode_head.channels: 12, not 8' in told
    assert 'augmentation of labeled images: 2.crop_size.0: 24, not 32' in told


def test_equal_length_reaches_every_config(tool, folder):
    args = tool.parse_args(arguments(folder, '--iters', '8', '--data-root', 'here'))
    for job in tool.plan(args):
        assert job.cfg.train_cfg.max_iters == 8
        assert job.cfg.train_cfg.val_interval == 2
        assert job.cfg.custom_hooks[-1].type == 'CostHook'
        assert 'data_root' not in str(job.cfg.train_dataloader)  # synthetic images have none
    drawn = [job.cfg.train_dataloader.dataset for job in tool.plan(args)]
    assert (drawn[0].seed, drawn[1].labeled.seed, drawn[1].unlabeled.seed) == (0, 0, 0)


def test_data_and_evaluation_are_set_in_configs_of_every_kind(tool, tmp_path):
    names = ['suponly', 'imas', 'st']
    args = tool.parse_args(
        [
            '--methods',
            *names,
            '--dataset',
            'camvid',
            '--partition',
            '1_8/seed0',
            '--network',
            'r18-tiny',
        ]
        + ['--work-dir', str(tmp_path), '--data-root', 'here', '--evaluate-on', 'test']
        + ['--cfg-options', 'val_dataloader.batch_size=3', '--val-interval', '50']
    )
    plain, imas, st = (job.cfg for job in tool.plan(args))
    assert plain.train_dataloader.dataset.data_root == 'here'
    children = imas.train_dataloader.dataset
    assert (children.labeled.data_root, children.unlabeled.data_root) == ('here', 'here')
    assert st.train_dataloader.dataset.pseudo_labeled.images.data_root == 'here'
    for cfg in (plain, imas, st):
        assert cfg.train_dataloader.dataset.partition == '1_8/seed0'
        assert cfg.val_dataloader.dataset.ann_file == 'splits/test.txt'
        assert cfg.val_dataloader.dataset.data_root == 'here'
        assert cfg.val_dataloader.batch_size == 3
        assert cfg.train_cfg.val_interval == 50


def test_a_run_that_goes_on_is_left_alone(tool, folder):
    (folder / 'work').mkdir()
    with (folder / 'work' / 'imas_seed0.lock').open('w') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        message = run(tool, folder)
    assert 'imas_seed0' in message
    assert 'is being trained by another process' in message
    assert tool.launched == []


def test_interrupted_benchmark_leaves_no_process(tool, folder, monkeypatch):
    started = []
    start = Forked.__init__

    def watched(self, *args):
        start(self, *args)
        started.append(self)

    monkeypatch.setattr(Forked, '__init__', watched)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.time, 'sleep', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tool, folder, '--jobs', '2')
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        (['--seeds', '1', '1'], 'names a seed twice'),
        (['--jobs', '0'], '--jobs 0 must be at least 1'),
    ],
)
def test_bad_arguments_are_refused(tool, folder, capsys, given, says):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments(folder, *given))
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        (['--method-options', 'esl', 'a=1'], '--method-options esl: there is no such method'),
        (['--method-options', 'imas', 'a'], 'Give settings as KEY=VALUE'),
        (
            ['--method-options', 'imas', 'optim_wraper.optimizer.lr=0.3'],
            '--method-options optim_wraper.optimizer.lr=0.3 has no effect',
        ),
        (
            ['--cfg-options', 'optim_wraper.optimizer.lr=0.3'],
            'Did you mean optim_wrapper.optimizer.lr?',
        ),
        (
            ['--baseline', 'esl'],
            '--baseline esl is not one of the methods. Choose one of suponly, imas',
        ),
        (
            ['--baseline', 'imas'],
            'is not a network of imas. Choose one of imas/student, imas/teacher.',
        ),
        (['--baseline', 'imas/other'], '--baseline imas/other is not a network of imas'),
        (['--baseline', 'suponly/student'], 'is not a network of suponly. Choose one of suponly.'),
        (
            ['--metric', 'mDice'],
            'val_evaluator of suponly computes. Choose one of aAcc, mIoU, mAcc, or',
        ),
        (
            ['--method-options', 'imas', 'model.semi_train_cfg.tau=2.0'],
            'imas: semi_train_cfg.tau must be in [0, 1], got 2.0',
        ),
        (
            [
                '--method-options',
                'imas',
                'param_scheduler.0.begin=14',
                'param_scheduler.0.end=28',
            ],
            'imas: The training has 14 optimizer step(s), but param_scheduler.0 (NonzeroPolyLR) begins at',
        ),
    ],
)
def test_settings_that_name_nothing_are_refused(tool, folder, given, says):
    assert says in run(tool, folder, *given)
    assert tool.launched == []


def test_a_network_of_a_method_may_be_the_baseline(tool, folder):
    args = tool.parse_args(arguments(folder, '--baseline', 'imas/teacher'))
    jobs = tool.plan(args)
    _, found, _ = tool.compare(jobs, True)
    for wanted, name in (('imas/teacher', 'imas/teacher'), (None, 'suponly')):
        assert tool._baselines(wanted, jobs, found) == dict.fromkeys(('suponly', 'imas'), name)
    run(tool, folder, '--report', '--baseline', 'imas/teacher')
    assert 'gain on imas/teacher' in (folder / 'work' / 'results.md').read_text()


def test_metrics_of_other_evaluators_are_not_guessed(tool, folder):
    jobs = tool.plan(tool.parse_args(arguments(folder)))
    jobs[0].cfg.val_evaluator = [{'type': 'IoUMetric', 'iou_metrics': ['mFscore']}]
    jobs[1].cfg.val_evaluator = {'type': 'CityscapesMetric'}
    tool._check_metric('mPrecision', jobs)
    with pytest.raises(ValueError, match='Choose one of aAcc, mFscore, mPrecision, mRecall, or'):
        tool._check_metric('mIoU', jobs)


def test_labels_are_names_of_their_own(tool, folder):
    assert 'names imas twice' in run(tool, folder, methods=('imas.py', 'imas.py'))
    assert "'a b' names files" in run(tool, folder, methods=('a b=imas.py',))


def test_it_is_not_started_by_torchrun(tool, folder, monkeypatch, capsys):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(SystemExit):
        tool.parse_args(arguments(folder))
    assert '--nproc N gives each run N processes' in capsys.readouterr().err


def test_runs_at_a_time_have_gpus_of_their_own_where_there_are_enough(tool, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6,7')
    assert benchmark.devices_of(2, 2) == ['4,5', '6,7']
    assert benchmark.devices_of(4, 1) == ['4', '5', '6', '7']
    assert benchmark.devices_of(3, 2) == []
    assert benchmark.devices_of(1, 2) == []


def test_a_failure_is_told_by_the_line_that_says_most(tool):
    said = 'ValueError: tau=2 must be in [0, 1]. Give another.'
    ranks = [
        '[rank0]: ' + said,
        'torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ',
    ]
    assert benchmark._telling(['Iter 1', said, 'Exit']) == said
    assert benchmark._telling([*ranks, 'error_file: <N/A>']) == ranks[0]
    aborted = ['error_file: <N/A>', 'traceback : Signal 6 (SIGABRT) received by PID 7']
    assert benchmark._telling(aborted) == aborted[-1]
    assert benchmark._telling([]) == 'it printed nothing.'
    assert benchmark._ended(3) == 'exit code 3'
    assert benchmark._ended(-15) == 'ended by SIGTERM'


@pytest.mark.slow
def test_runs_on_two_processes_by_torchrun(folder):
    """The tool and its training as users start them, with all their imports."""
    result = processes.run_script(
        TOOLS / 'benchmark_methods.py',
        *arguments(folder, '--nproc', '2', methods=('imas.py',)),
        cwd=folder,
    )
    said = (folder / 'work' / 'imas_seed0.txt').read_text()
    assert result.code == 0, f'{result.output}\n{said}'
    # 2 + 2 images on each of two processes.
    assert cells(folder, 'imas, teacher')[5:8] == ['14', '56', '56']
    costs = json.loads((folder / 'work' / 'imas_seed0' / 'costs.json').read_text())
    assert costs['processes'] == 2
    assert 'an effective batch of 4+4' in said
