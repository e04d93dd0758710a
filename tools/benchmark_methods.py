"""Train several methods and seeds on one split with the same number of iterations, and write a table.

Methods are names in configs/ (`imas`, `mean-teacher`, with --dataset, --partition, --network ...) or config
files. Before the first run, the configs are compared: split, validation set, metric and length must be equal.
The table lists all other differences (labeled images per step, crop, network, augmentation, optimizer). The
length is that of the last training. Earlier trainings (GPS's teacher, the first stages of ST and ST++) are
listed as a difference, and the table has the iterations and images of each training. On synthetic shapes, the
seed also changes the images. Every run is `tools/train.py` in one or several (--nproc) new processes. After
an interruption, run the same command again: it keeps finished runs and resumes the others. If a run fails, it
is reported, the others continue, and the exit code is 1.

Writes WORK_DIR/results.md, .csv and .png. For each run, writes WORK_DIR/METHOD_seedN.py (config), .txt
(output), .json (settings and state) and a work folder.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shlex
import signal
import sys
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

# The first import of yapf after an installation writes a cache, which two trainings would write at the same
# time.
from yapf.yapflib import yapf_api  # noqa: F401

from mmseg_semi.cli import check_file, merge_options, one_sentence_errors, read_config
from mmseg_semi.comparison import (
    DECISIVE,
    baselines,
    common_reference,
    csv_text,
    data_root_keys,
    differences,
    drawn_seed_keys,
    facts,
    find_config,
    iterations_of,
    markdown,
    metrics_of,
    networks_of,
    rows,
    set_length,
    set_partition,
    trainings_of,
)
from mmseg_semi.comparison.benchmark import Job, run_all
from mmseg_semi.comparison.configs import NAME
from mmseg_semi.engine.startup.lengths import check_schedulers
from mmseg_semi.visualization import Estimate, save_comparison

TRAIN = Path(__file__).resolve().with_name('train.py')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        required=True,
        metavar='[LABEL=]METHOD',
        help='names of methods or config files; LABEL is the name in the table',
    )
    name = parser.add_argument_group("parts of the configs' names, for methods given by name")
    name.add_argument('--dataset', help='data set, such as camvid, shapes, voc12')
    name.add_argument('--network', help='network, such as r18-tiny, r101-d16')
    name.add_argument('--head', help='head, such as deeplabv3plus')
    name.add_argument('--schedule', help='schedule, such as 600iter, 1xb16-10k')
    name.add_argument('--crop', help='crop size, such as 96x72')
    parser.add_argument(
        '--partition',
        metavar='FOLDER',
        help='train_dataloader.dataset.partition of all methods, such as 1_8/seed0 or classic/92 '
        '(default: that of each config)',
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='random seeds (default: 0)'
    )
    parser.add_argument(
        '--iters',
        type=int,
        help='length of each training (default: that of the configs, if all agree)',
    )
    parser.add_argument(
        '--val-interval',
        type=int,
        help='iterations between validations (default: a quarter of the training)',
    )
    parser.add_argument(
        '--work-dir', type=Path, required=True, help='folder for all runs and the table'
    )
    parser.add_argument(
        '--data-root', help='data_root of all datasets (default: that of the configs)'
    )
    parser.add_argument(
        '--evaluate-on',
        choices=['val', 'test'],
        default='val',
        help='images of val_dataloader or of test_dataloader (default: val)',
    )
    parser.add_argument('--metric', default='mIoU', help='metric to compare (default: mIoU)')
    parser.add_argument(
        '--baseline',
        metavar='LABEL[/NETWORK]',
        help='method to compute gains over; to select a network, write imas/teacher (default: the supervised '
        'method with the same network and dropout, such as suponly-des4 for des4; otherwise the first '
        'supervised method, if any)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='settings of all configs, as in train.py',
    )
    parser.add_argument(
        '--method-options',
        nargs='+',
        action='append',
        default=[],
        metavar=('LABEL', 'KEY=VALUE'),
        help='settings of one method; may be given several times',
    )
    parser.add_argument(
        '--allow-differences',
        action='store_true',
        help='list differences in split, evaluation or length in the table instead of stopping',
    )
    parser.add_argument(
        '--nproc',
        type=int,
        default=1,
        help='processes of each run on this machine (default: 1); for several machines see '
        'docs/methods.md',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='number of runs at the same time (default: 1)',
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='only write the table of the finished runs',
    )
    args = parser.parse_args(argv)
    for key in ('nproc', 'jobs', 'iters', 'val_interval'):
        value = getattr(args, key)
        if value is not None and value < 1:
            parser.error(f'--{key.replace("_", "-")} {value} must be at least 1')
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f'--seeds {" ".join(map(str, args.seeds))} names a seed twice')
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        parser.error('start it once, not under torchrun: --nproc N gives each run N processes')
    return args


# ------------------------------------------------------------------ what is to be run


def plan(args: argparse.Namespace) -> list[Job]:
    """The runs, ordered by seed.

    Raises:
        FileNotFoundError: a config file is missing.
        ValueError: a method, label or setting does not fit.
    """
    sources = {}
    for given in args.methods:
        label, _, method = given.rpartition('=')
        source = _source(method, args)
        said = NAME.fullmatch(source.name)
        label = label or (said['method'] if said else source.stem)
        if not re.fullmatch(r'[\w.+-]+', label):
            raise ValueError(
                f'--methods {given}: {label!r} names files. Use letters, digits, dots, plus and minus signs.'
            )
        if label in sources:
            raise ValueError(
                f'--methods names {label} twice. Give one of them another label, as in {label}-2={method}.'
            )
        sources[label] = source
    options = {label: {} for label in sources}
    for label, *values in args.method_options:
        if label not in options:
            raise ValueError(
                f'--method-options {label}: there is no such method. Choose one of {", ".join(options)}.'
            )
        options[label].update(_parsed(label, values))
    return [
        Job(
            label,
            seed,
            source,
            _resolved(args, label, source, seed, options[label]),
            args.nproc,
            TRAIN,
        )
        for seed in args.seeds
        for label, source in sources.items()
    ]


def _source(method: str, args: argparse.Namespace) -> Path:
    if method.endswith('.py'):
        check_file(method, 'config', '.py')
        return Path(method)
    parts = ('dataset', 'network', 'head', 'schedule', 'crop')
    return find_config(method, **{part: getattr(args, part) for part in parts})


def _parsed(label: str, values: list[str]) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction)
    if not values or not all('=' in value for value in values):
        raise ValueError(
            f'--method-options {label} {" ".join(values)}. Give settings as KEY=VALUE.'
        )
    return parser.parse_args(values).options


def _resolved(args, label: str, source: Path, seed: int, options: dict) -> Config:
    # Formatting takes longer than writing, and train.py formats its own copy.
    cfg = read_config(source, format_python_code=False)
    if args.evaluate_on == 'test':
        for part in ('dataloader', 'evaluator'):
            cfg[f'val_{part}'] = copy.deepcopy(cfg[f'test_{part}'])
    if args.partition:
        set_partition(cfg, args.partition)
    changes = {'randomness.seed': seed, **dict.fromkeys(drawn_seed_keys(cfg), seed)}
    if args.data_root:
        changes.update(dict.fromkeys(data_root_keys(cfg), args.data_root))
    if args.iters:
        changes['train_cfg.max_iters'] = args.iters
    cfg.merge_from_dict(changes)
    for given, as_ in ((args.cfg_options, '--cfg-options'), (options, '--method-options')):
        merge_options(cfg, copy.deepcopy(given), as_)
    set_length(cfg, args.nproc)
    if 'train_cfg.val_interval' not in {**args.cfg_options, **options}:
        cfg.train_cfg.val_interval = args.val_interval or max(1, iterations_of(cfg) // 4)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='CostHook')]
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if saving.get('type') == 'CheckpointHook':
        # So that an interruption before a validation loses neither the last score nor a possible best
        # checkpoint.
        saving.type = 'AtomicCheckpointHook'
    cfg.work_dir = str(args.work_dir / f'{label}_seed{seed}')
    return cfg


def compare(
    jobs: list[Job], allow: bool
) -> tuple[dict[str, dict[str, str]], dict[str, dict], dict]:
    """Compare the configs.

    Returns:
        By method what differs, by method its facts, and the facts that the others are held to.

    Raises:
        ValueError: split, evaluation or length differ and ``allow`` is False, a schedule is too long, or a
            method refuses its settings.
    """
    init_default_scope('mmseg')
    first = {}
    for job in jobs:
        first.setdefault(job.method, job)
    for method, job in first.items():
        for name, training in trainings_of(job.cfg).items():
            try:
                check_schedulers(training)
            except ValueError as error:
                raise ValueError(f'{"/".join(filter(None, (method, name)))}: {error}') from None
    found = {}
    for method, job in first.items():
        try:
            found[method] = facts(job.cfg)
        except ValueError as error:
            raise ValueError(f'{method}: {error}') from None
    reference = common_reference(found.values())
    different = {method: differences(of, reference) for method, of in found.items()}
    for method, says in different.items():
        for key in DECISIVE:
            if key in says and not allow:
                raise ValueError(
                    f'{method} differs from the methods before it in {key} ({says[key]}), so that their '
                    'figures cannot be compared. Make them equal (--iters, --cfg-options, --method-options), '
                    'or let the table say so (--allow-differences).'
                )
    return different, found, reference


# ------------------------------------------------------------------ running


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # SIGTERM ends the running trainings like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with one_sentence_errors():
        jobs = plan(args)
        _check_metric(args.metric, jobs)
        different, found, reference = compare(jobs, args.allow_differences)
        baseline = _baselines(args.baseline, jobs, found)
        args.work_dir.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            job.read_state()
        if not args.report:
            for job in jobs:
                if not job.finished:
                    job.take()
        for job in jobs:
            if job.finished:
                print(f'{job.name}: finished before')
        about = _about(args, argv, jobs, reference)

        def report() -> str:
            return write_report(args, jobs, baseline, different, about)

        if not args.report:
            run_all(jobs, args.jobs, args.metric, report)
        text = report()
    print(f'\n{text}')
    missing = [job.name for job in jobs if not job.finished]
    if missing:
        sys.exit(
            f'error: {len(missing)} of {len(jobs)} runs are not finished: {", ".join(missing)}.'
        )


def _check_metric(metric: str, jobs: list[Job]) -> None:
    for job in jobs:
        *_, training = trainings_of(job.cfg).values()
        known = metrics_of(training)
        if known is not None and metric not in known:
            raise ValueError(
                f'--metric {metric} is not among what val_evaluator of {job.method} computes. Choose one of '
                f'{", ".join(known)}, or set another with --cfg-options val_evaluator.iou_metrics=[...].'
            )


def _baselines(wanted: str | None, jobs: list[Job], found: dict[str, dict]) -> dict[str, str]:
    """The baseline of each method, with its network if it has names for them."""
    chosen = baselines(found) if wanted is None else dict.fromkeys(found, wanted)
    return {method: _with_network(name, jobs) for method, name in chosen.items()}


def _with_network(wanted: str, jobs: list[Job]) -> str:
    """The baseline of --baseline, checked to be a network of a method."""
    method, _, network = wanted.partition('/')
    configs = {job.method: list(trainings_of(job.cfg).values())[-1] for job in jobs}
    if method not in configs:
        raise ValueError(
            f'--baseline {wanted} is not one of the methods. Choose one of {", ".join(configs)}.'
        )
    names = {name: '/'.join(filter(None, (method, name))) for name in networks_of(configs[method])}
    if len(names) == 1 and not network:
        return next(iter(names.values()))
    if network not in names:
        raise ValueError(
            f'--baseline {wanted} is not a network of {method}. Choose one of {", ".join(names.values())}.'
        )
    return wanted


def _about(args, argv: list[str] | None, jobs: list[Job], reference: dict) -> list[str]:
    """The lines above the table: command, images, seeds and settings."""
    arguments = sys.argv[1:] if argv is None else argv
    unlabeled = reference['unlabeled images']
    drawn = ' Each seed draws other images.' if drawn_seed_keys(jobs[0].cfg) else ''
    return [
        f'Command: `python tools/benchmark_methods.py {shlex.join(arguments)}`',
        f'{len(reference["labeled images"])} labeled and {len(unlabeled or ())} unlabeled images, '
        f'{reference["labeled images per step"]:g} labeled ones per step of a process, {args.nproc} '
        f'process(es); {len(reference["validation images"])} validation images; seeds '
        f'{", ".join(map(str, args.seeds))}.{drawn}',
    ]


def write_report(args, jobs: list[Job], baseline: dict[str, str], different, about) -> str:
    """Write the table, CSV file and picture of the finished runs, and return the table."""
    runs = [job.result(args.metric) for job in jobs]
    text = markdown(runs, baseline, args.metric, different, about)
    Path(args.work_dir, 'results.md').write_text(text, encoding='utf-8')
    Path(args.work_dir, 'results.csv').write_text(
        csv_text(runs, baseline, args.metric), encoding='utf-8'
    )
    estimates = {
        row.name: Estimate(
            [run.scores[row.network].last for run in row.runs],
            [run.scores[row.network].best for run in row.runs],
        )
        for row in rows(runs, baseline)
    }
    if estimates:
        # The picture has a line for the baseline only if all methods have the same one.
        common = {name.replace('/', ', ') for name in baseline.values()}
        row = common.pop() if len(common) == 1 else None
        save_comparison(args.work_dir / 'results.png', estimates, args.metric, row)
    return text


if __name__ == '__main__':
    main()
