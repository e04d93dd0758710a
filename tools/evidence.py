"""Train a list of jobs, one process per core at the lowest priority, and write one row per finished run.

    git worktree add --detach ../pinned COMMIT
    PYTHONPATH=../pinned python ../pinned/tools/evidence.py PLAN.json --rows ROWS.jsonl --work-dir WORK_DIR

The runs use the code and configs of the checkout that contains this tool, which must have no uncommitted
changes. PLAN.json is a list of objects. A list as a value means one run per element, and several lists mean
all combinations, except in hooks and options:

    [{"method": ["suponly", "imas"], "dataset": "vocanimals", "network": "efficientnet-lite0",
      "partition": "tuning/classic_366", "val": "lists/tuning/val.txt", "seed": [0, 1, 2],
      "lr": [2e-4, 5e-4], "iters": 1200, "hooks": [{"type": "MemoryFormatHook"}],
      "options": {"optim_wrapper.optimizer.weight_decay": 0.05}}]

method, dataset and network are parts of the config's name (docs/configs.md). `config` names a file instead.
partition is that of train_dataloader.dataset, or one list below data_root. val is the list of validation
images. lr is that of optim_wrapper.optimizer. iters is the length, and val_interval is iters by default (one
validation at the end). hooks are added to custom_hooks. options are other settings, as in --cfg-options of
train.py. Only method or config is required.

ROWS.jsonl has one JSON object per run: data set, partition, method, network, seed, hash of the settings,
commit, the mIoU of the last, the best and each validation and the IoU of each class of each network, steps,
images seen, seconds. A job is not run again if a row has its hash, seed and commit. After an interruption, the
same command starts all jobs that have no row. If a run fails, it is reported, the others continue, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from mmengine.registry import init_default_scope

import mmseg_semi
from mmseg_semi.cli import check_file, merge_options, one_sentence_errors, read_config
from mmseg_semi.comparison import (
    drawn_seed_keys,
    find_config,
    iterations_of,
    set_length,
    set_partition,
    settings_hash,
)
from mmseg_semi.comparison.evidence import Job, finished, run_all

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('dataset', 'network', 'head', 'schedule', 'crop')
KEYS = (
    'method',
    'config',
    *PARTS,
    'partition',
    'val',
    'seed',
    'lr',
    'iters',
    'val_interval',
    'hooks',
    'options',
)
#: Keys whose value is a list, or an object, by itself.
WHOLE = ('hooks', 'options')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('plan', type=Path, help='JSON file of the jobs')
    parser.add_argument('--rows', type=Path, required=True, help='JSONL file to append the rows to')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder of the runs')
    parser.add_argument(
        '--jobs', type=int, default=len(os.sched_getaffinity(0)), help='default: one per core'
    )
    parser.add_argument('--keep', action='store_true', help='keep the checkpoints of finished runs')
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs} must be at least 1')
    return args


def commit_of(root: Path) -> str:
    """The commit of a checkout.

    Raises:
        ValueError: It has uncommitted changes, or the package is imported from elsewhere.
    """
    package = Path(mmseg_semi.__file__).resolve().parents[1]
    if package != root:
        raise ValueError(
            f'mmseg_semi is imported from {package}, not from {root}. Set PYTHONPATH={root}.'
        )

    def git(*arguments: str) -> str:
        command = ['git', '-C', str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    changed = git('status', '--porcelain', '--untracked-files=no')
    if changed:
        raise ValueError(
            f'{root} has uncommitted changes ({changed.splitlines()[0].strip()}). Commit them, or run from a '
            'checkout of a commit (git worktree add --detach).'
        )
    return git('rev-parse', 'HEAD')


def plan(path: Path, work_dir: Path) -> list[Job]:
    """The jobs of a plan, in its order.

    Raises:
        ValueError: The plan is not a list of objects, a key is unknown, a config does not fit, or two jobs are
        the same.
    """
    try:
        entries = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}). Correct it.') from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f'{path} must hold a list of objects, [{{"method": "suponly", ...}}, ...].'
        )
    jobs = {}
    for entry in entries:
        unknown = sorted(set(entry) - set(KEYS))
        if unknown or not {'method', 'config'} & set(entry):
            wrong = f'has the unknown key {unknown[0]!r}' if unknown else 'has no method or config'
            raise ValueError(f'An entry of {path} {wrong}. Use the keys {", ".join(KEYS)}.')
        values = [
            value if isinstance(value, list) and key not in WHOLE else [value]
            for key, value in entry.items()
        ]
        for combination in itertools.product(*values):
            job = resolve(dict(zip(entry, combination, strict=True)), work_dir)
            if job.key in jobs:
                raise ValueError(f'{path} lists {job.name} more than once. Remove the duplicate.')
            jobs[job.key] = job
    return list(jobs.values())


def resolve(said: dict, work_dir: Path) -> Job:
    """The job of one combination of the plan's values."""
    if 'config' in said:
        source = ROOT / said['config']
        check_file(str(source), 'config', '.py')
    else:
        parts = {part: said.get(part) for part in PARTS}
        source = find_config(said['method'], ROOT / 'configs', **parts)
    cfg = read_config(source, format_python_code=False)
    if 'partition' in said:
        set_partition(cfg, said['partition'])
    changes = dict.fromkeys(['randomness.seed', *drawn_seed_keys(cfg)], said.get('seed', 0))
    if 'val' in said:
        changes['val_dataloader.dataset.ann_file'] = said['val']
    if 'lr' in said:
        changes['optim_wrapper.optimizer.lr'] = said['lr']
    if 'iters' in said:
        changes['train_cfg.max_iters'] = said['iters']
    cfg.merge_from_dict(changes)
    merge_options(cfg, said.get('options'), 'options')
    set_length(cfg, 1)
    cfg.train_cfg.val_interval = said.get('val_interval', iterations_of(cfg))
    several = isinstance(cfg.val_evaluator, (list, tuple))
    for evaluator in cfg.val_evaluator if several else [cfg.val_evaluator]:
        if evaluator.type == 'IoUMetric':
            evaluator.type = 'ClassIoUMetric'
    hooks = [dict(type='CostHook'), *said.get('hooks', [])]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]
    job = Job(said, source, cfg, settings_hash(cfg), ROOT)
    cfg.work_dir = str(work_dir.resolve() / job.name)
    return job


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # SIGTERM ends the running jobs like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with one_sentence_errors():
        check_file(str(args.plan), 'plan', '.json')
        commit = commit_of(ROOT)
        init_default_scope('mmseg')
        jobs = plan(args.plan, args.work_dir)
        done = finished(args.rows, commit)
        args.work_dir.mkdir(parents=True, exist_ok=True)
        with (args.work_dir / '.lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f'Another process runs jobs in {args.work_dir}. Wait for it, or give another --work-dir.'
                ) from None
            todo = [job for job in jobs if job.key not in done]
            print(f'{len(jobs)} jobs, {len(jobs) - len(todo)} of them finished before', flush=True)
            failed = run_all(todo, args.jobs, commit, args.rows, args.keep)
    if failed:
        sys.exit(f'error: {len(failed)} of {len(jobs)} runs failed.')


if __name__ == '__main__':
    main()
