"""The table of a comparison as Markdown, and as CSV with one line per run and network."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .results import Cost, Score

_MEMORY = {
    'allocated': "Allocated memory: PyTorch's peak on a GPU in the training iterations",
    'resident': 'Resident memory: the peak of a whole training process, Python, PyTorch and validations in it',
    'inherited': 'Inherited memory: as resident, and never below that of the process that started the training',
}


class Run(NamedTuple):
    """One method with one seed.

    Attributes:
        method (str): Name of the method in the table.
        seed (int): Seed of the run.
        config (str): File of the config.
        scores (dict[str, Score]): Scores by network; empty unless the run is finished.
        cost (Cost, optional): Cost of the run; None unless it is finished.
        jobs (int): Number of runs that shared the machine.
        processes (int): Number of processes of the run.
        error (str): Error of a failed run; '' otherwise.
    """

    method: str
    seed: int
    config: str
    scores: dict[str, Score]
    cost: Cost | None
    jobs: int = 1
    processes: int = 1
    error: str = ''

    @property
    def status(self) -> str:
        return 'finished' if self.cost else 'failed' if self.error else 'not run'


class Spread(NamedTuple):
    """Mean over seeds and sample standard deviation; None with one seed."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return f'{self.mean:.2f}' if self.std is None else f'{self.mean:.2f} ± {self.std:.2f}'


class Row(NamedTuple):
    """Results of one network of a method over the finished seeds.

    Attributes:
        method, network (str): ``network`` is '' for a method with one network.
        runs (list[Run]): Finished runs.
        last, best (Spread): Last and best value of the metric.
        gain (Spread, optional): Difference of ``last`` to the baseline with the same seeds; None without common
            seeds.
    """

    method: str
    network: str
    runs: list[Run]
    last: Spread
    best: Spread
    gain: Spread | None

    @property
    def name(self) -> str:
        return f'{self.method}, {self.network}' if self.network else self.method


#: One baseline for all methods, or a dict of baselines by method. Without a baseline there is no gain.
Baseline = str | Mapping[str, str] | None


def rows(runs: Sequence[Run], baseline: Baseline = None) -> list[Row]:
    """Return the rows of all methods with finished runs, in the order of the runs.

    Args:
        runs: All runs.
        baseline: Baseline of the gain, as ``METHOD/NETWORK`` if it has several networks; for all methods or by
            method.

    Raises:
        ValueError: The network of the baseline does not exist.
    """
    baselines = _by_method(runs, baseline)
    scores_of = {name: _baseline_scores(runs, name) for name in baselines.values()}
    found = []
    for method in dict.fromkeys(run.method for run in runs):
        finished = [run for run in runs if run.method == method and run.cost]
        base = scores_of[baselines[method]] if method in baselines else {}
        for network in dict.fromkeys(name for run in finished for name in run.scores):
            scores = [run.scores[network] for run in finished]
            gains = [
                run.scores[network].last - base[run.seed] for run in finished if run.seed in base
            ]
            found.append(
                Row(
                    method,
                    network,
                    finished,
                    Spread.of([score.last for score in scores]),
                    Spread.of([score.best for score in scores]),
                    Spread.of(gains) if gains else None,
                )
            )
    return found


def _by_method(runs: Sequence[Run], baseline: Baseline) -> dict[str, str]:
    """Return the baseline of each method that has one."""
    if isinstance(baseline, Mapping):
        return dict(baseline)
    return {run.method: baseline for run in runs if baseline}


def _baseline_scores(runs: Sequence[Run], baseline: str) -> dict[int, float]:
    """Return the last value of the baseline by seed, for finished runs."""
    method, _, network = baseline.partition('/')
    base = {}
    for run in runs:
        if run.method == method and run.cost:
            if network not in run.scores:
                names = ', '.join(f'{method}/{name}'.strip('/') for name in run.scores)
                raise ValueError(
                    f'--baseline {baseline} is not a validated network. Give one of {names}.'
                )
            base[run.seed] = run.scores[network].last
    return base


def markdown(
    runs: Sequence[Run],
    baseline: Baseline,
    metric: str,
    differences: dict[str, dict[str, str]],
    about: Sequence[str] = (),
) -> str:
    """Return the table with explanatory notes.

    Args:
        runs: All runs.
        baseline: See :func:`rows`; None omits the gain.
        metric: Name of the metric.
        differences: Differences to the reference, by method.
        about: Sentences on the whole comparison.

    Raises:
        ValueError: See :func:`rows`.
    """
    table = rows(runs, baseline)
    costs = [run.cost for run in runs if run.cost]
    baselines = _by_method(runs, baseline)
    names = list(dict.fromkeys(baselines.values()))
    gain = [f'gain on {names[0]}, last' if len(names) == 1 else 'gain, last'] if names else []
    memory = '/'.join(sorted({cost.memory_kind for cost in costs})) or 'peak'
    head = [
        '',
        f'{metric}, last',
        f'{metric}, best',
        *gain,
        's/iteration',
        f'{memory} memory, MiB',
        'iterations',
        'labeled seen',
        'unlabeled seen',
        'differs in',
    ]
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    shown = {row.method for row in table}
    for method in dict.fromkeys(run.method for run in runs):
        for row in (row for row in table if row.method == method):
            lines.append(_line(row, runs, bool(names), differences.get(method, {})))
        if method not in shown:
            states = sorted({run.status for run in runs if run.method == method})
            lines.append(f'| {method} | {" and ".join(states)} ' + '| ' * (len(head) - 2) + '|')
    if len(names) > 1:
        over = {name: ', '.join(m for m in baselines if baselines[m] == name) for name in names}
        gains = '; '.join(f'that of {methods} on {name}' for name, methods in over.items())
        about = [*about, f'Gain: {gains}, which has the same network where there is one.']
    return '\n'.join([*lines, '', *_notes(runs, metric, differences, about)]) + '\n'


def _line(row: Row, runs: Sequence[Run], gains: bool, different: dict[str, str]) -> str:
    costs = [run.cost for run in row.runs]
    seeds = sum(run.method == row.method for run in runs)
    name = row.name if len(costs) == seeds else f'{row.name} ({len(costs)} of {seeds} seeds)'
    cost = costs[0]
    gain = []
    if gains:
        gain = ['-' if row.gain is None else f'{row.gain.mean:+.2f}']
    cells = [
        name,
        str(row.last),
        str(row.best),
        *gain,
        f'{statistics.median(c.seconds_per_iteration for c in costs):.3f}',
        f'{max(c.peak_memory_mib for c in costs):.0f}',
        _of_each(cost, 'iterations'),
        _of_each(cost, 'labeled_seen'),
        _of_each(cost, 'unlabeled_seen'),
        ', '.join(different) or '-',
    ]
    return '| ' + ' | '.join(cells) + ' |'


def _of_each(cost: Cost, name: str) -> str:
    """Return a number of a method, or one per training, with the training of the result last."""
    if len(cost.trainings) == 1:
        return str(getattr(cost, name))
    return ' + '.join(f'{one.stage} {getattr(one, name)}' for one in cost.trainings)


def _notes(
    runs: Sequence[Run], metric: str, differences: dict[str, dict[str, str]], about: Sequence[str]
) -> list[str]:
    costs = [run.cost for run in runs if run.cost]
    notes = list(about)
    notes.append(
        f'Last: {metric} at the last iteration, the result. Best: the best of the validations, chosen on '
        'the images that it is measured on. ± is the standard deviation over seeds (n - 1).'
    )
    if costs:
        devices = ', '.join(sorted({cost.device for cost in costs}))
        memory = '; '.join(_MEMORY[kind] for kind in sorted({cost.memory_kind for cost in costs}))
        notes.append(
            f'Ran on {devices}. s/iteration: the median of an iteration with its loading, in the last '
            f'training. {memory}.'
        )
    notes.append(
        'Seen: number of loaded images, including unlabeled images before a method starts to use them '
        '(`unlabeled_start`).'
    )
    shared = max((run.jobs for run in runs if run.cost), default=1)
    if shared > 1:
        notes.append(
            f'Up to {shared} runs shared the machine, so their times are longer than those of single runs.'
        )
    several = {run.method: run.cost for run in runs if run.cost and len(run.cost.trainings) > 1}
    if several:
        notes.append(
            'Methods are compared at equal iterations of the training that gives the result. For a method with '
            'several trainings, scores and time are those of this training, memory is the peak of all, and '
            'iterations and images seen are listed per training, without the labeling in between.'
        )
    for method, cost in several.items():
        notes.append(
            f'{method} trains for {sum(one.steps for one in cost.trainings)} optimizer steps in all: '
            f'{", ".join(map(str, cost.trainings))}.'
        )
    for method, different in differences.items():
        if different:
            text = '; '.join(f'{name}: {how}' for name, how in different.items())
            notes.append(f'{method} differs in {text}.')
    for run in runs:
        if run.error:
            notes.append(f'{run.method}, seed {run.seed}, failed: {run.error}')
    return [f'- {note}' for note in notes]


def csv_text(runs: Sequence[Run], baseline: Baseline, metric: str) -> str:
    """Return one line per run and network, or per unfinished run.

    Raises:
        ValueError: See :func:`rows`.
    """
    baselines = _by_method(runs, baseline)
    scores_of = {name: _baseline_scores(runs, name) for name in baselines.values()}
    buffer = io.StringIO()
    columns = [
        'method',
        'network',
        'seed',
        'status',
        f'{metric}_last',
        f'{metric}_best',
        'best_iteration',
        'gain_last',
        'baseline',
        *Cost._fields,
        'processes',
        'jobs',
        'config',
        'error',
    ]
    writer = csv.DictWriter(buffer, columns, lineterminator='\n')
    writer.writeheader()
    for run in runs:
        common = dict(
            method=run.method,
            seed=run.seed,
            status=run.status,
            processes=run.processes,
            jobs=run.jobs,
            config=run.config,
            error=run.error,
            **(run.cost._asdict() if run.cost else {}),
        )
        if run.cost:
            common['trainings'] = '; '.join(map(str, run.cost.trainings))
        if not run.scores:
            writer.writerow(common)
        base = scores_of[baselines[run.method]] if run.method in baselines else {}
        for network, score in run.scores.items():
            gain = round(score.last - base[run.seed], 4) if run.seed in base else ''
            writer.writerow(
                {
                    **common,
                    'network': network,
                    f'{metric}_last': round(score.last, 4),
                    f'{metric}_best': round(score.best, 4),
                    'best_iteration': score.best_iteration,
                    'gain_last': gain,
                    'baseline': baselines.get(run.method, ''),
                }
            )
    return buffer.getvalue()
