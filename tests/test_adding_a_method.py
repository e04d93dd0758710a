"""The example of docs/adding_a_method.md, taken from the page, trained and compared as it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'adding_a_method.md').read_text(encoding='utf-8')


def run(folder, *command):
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(['.', str(ROOT)]),
        'CUDA_VISIBLE_DEVICES': '',
    }
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The page's files, each named in the paragraph before its block."""
    folder = tmp_path_factory.mktemp('method')
    blocks = re.findall(r'`(\w+\.py)`(?:(?!```)[\s\S])*?```python\n(.*?)```', PAGE, re.DOTALL)
    assert [name for name, _ in blocks] == ['confident_teacher.py', 'confident_teacher_shapes.py']
    for name, text in blocks:
        (folder / name).write_text(text)
    assert dict(blocks)['confident_teacher.py'].count('\n') <= 80
    return folder


@pytest.mark.slow
def test_example_trains(folder):
    """Few iterations and images; tau 0 makes every pixel confident, so that numbers are known."""
    (command,) = re.findall(r'python (tools/train\.py .*)', PAGE)
    tool, *args = shlex.split(command)
    code, output = run(
        folder,
        ROOT / tool,
        *args,
        '--cfg-options',
        'model.semi_train_cfg.tau=0.0',
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        'val_dataloader.dataset.num_images=2',
        'train_dataloader.batch_size=4',
        'train_dataloader.sampler.labeled=2',
        'train_dataloader.sampler.unlabeled=2',
        'default_hooks.logger.interval=1',
        'log_processor.window_size=1',
    )
    assert code == 0, output
    (file,) = folder.glob('work_dirs/confident_teacher_shapes/*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    steps = [record for record in records if 'loss' in record]
    assert [record['step'] for record in steps] == [1, 2, 3, 4]
    for record in steps:
        assert record['confident_ratio'] == 1
        assert record['loss_unlabeled'] > 0
        assert record['cutmix_rate'] in (0, 1)
        total = record['decode.loss_ce'] + record['loss_unlabeled']
        assert record['loss'] == pytest.approx(total, rel=1e-4)
    assert {'student/mIoU', 'teacher/mIoU'} <= records[-1].keys()
    assert (
        'ConfidentTeacher predicts with the teacher; settings: unlabeled_start=0, '
        'unlabeled_start_epochs=0, unlabeled_start_fraction=0.0, unlabeled_end_fraction=1.0, '
        'labeled_weight=1.0, ignore_padding=True, channels_last=False, compile=False, tau=0.0, '
        'unlabeled_weight=0.5, '
        "cutmix={'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 0.5}."
    ) in output
    assert (
        'Choices for details that the paper of ConfidentTeacher leaves open: ignore_padding=True: padding '
        "excluded from the loss; cutmix={'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 0.5}: "
        'probability and box of CutMix'
    ) in output


@pytest.mark.slow
def test_example_enters_the_table(folder):
    """The page's command, reporting only; and a setting that the class refuses."""
    (command,) = re.findall(r'python (tools/benchmark_methods\.py (?:.*\\\n)*.*)', PAGE)
    tool, *args = shlex.split(command.replace('\\\n', ' '))
    code, output = run(folder, ROOT / tool, *args, '--report')
    assert code == 1
    assert '9 of 9 runs are not finished' in output
    assert '| confident_teacher_shapes | not run |' in output
    assert '40 labeled and 500 unlabeled images, 8 labeled ones per step' in output
    # In one frame with the package's methods: nothing differs.
    assert not re.search(r'^- .* differs in ', output, re.MULTILINE)


def test_a_setting_out_of_range_is_refused(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    import confident_teacher
    from tiny import tiny_segmentor

    message = re.escape('semi_train_cfg.tau must be in [0, 1], got 1.5.')
    with pytest.raises(ValueError, match=f'^{message}$'):
        confident_teacher.ConfidentTeacher(tiny_segmentor(), semi_train_cfg={'tau': 1.5})


@pytest.mark.slow
def test_the_settings_of_the_example_are_printed(folder):
    """The page's command, which names a class that no file of the package knows."""
    (command,) = re.findall(r'python (tools/settings\.py .*)', PAGE)
    tool, *args = shlex.split(command)
    code, output = run(folder, ROOT / tool, *args)
    assert code == 0, output
    rows = [line.split(' | ')[0] for line in output.splitlines() if line.startswith('| `')]
    assert rows == [
        *('| `unlabeled_start`', '| `unlabeled_start_epochs`', '| `unlabeled_start_fraction`'),
        *('| `unlabeled_end_fraction`', '| `labeled_weight`', '| `ignore_padding`'),
        *('| `channels_last`', '| `compile`'),
        *('| `tau`', '| `unlabeled_weight`', '| `cutmix`'),
    ]


def test_the_pages_words_on_cutmix_hold(folder, monkeypatch):
    """A part of the dict changes alone, and None mixes and logs nothing."""
    monkeypatch.syspath_prepend(str(folder))
    import confident_teacher
    from tiny import tiny_segmentor

    method = confident_teacher.ConfidentTeacher
    assert method.Settings({'cutmix': {'prob': 1.0}}).cutmix == {
        'type': 'AdaptiveCutMix',
        'adaptive': False,
        'prob': 1.0,
    }
    model = method(tiny_segmentor(), semi_train_cfg={'cutmix': None})
    mix = model.cutmix.plan(2, (4, 4), 'cpu')
    maps = object()
    assert mix(maps) is maps
    assert mix.log == {}
