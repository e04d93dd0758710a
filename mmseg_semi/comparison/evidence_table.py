"""Tables of the stored rows of an evidence plan: each seed, mean and deviation, gain over the baseline."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .evidence import METRIC
from .report import Spread

#: Options with these prefixes select images. Rows with different images are in different tables.
_IMAGES = ('train_dataloader.', 'val_dataloader.')


class Line(NamedTuple):
    """Trainings with the same settings and different seeds, and the values of one of their networks.

    Attributes:
        method (str): Method.
        network (str): Network that predicts; '' for a method with one network.
        settings (str): Changed settings, as ``key=value``.
        lr (float, optional): Learning rate of the plan.
        hooks (str): Further hooks of the plan.
        commits (list[str]): Commits of the trainings.
        values (dict[int, float]): Value in percent, by seed.
    """

    method: str
    network: str
    settings: str
    lr: float | None
    hooks: str
    commits: list[str]
    values: dict[int, float]


class Table(NamedTuple):
    """Lines that can be compared: the same data set, labels, network, steps and validation images."""

    title: str
    lines: list[Line]


def select(rows: Sequence[dict], **wanted: str | int | None) -> list[dict]:
    """Return the rows with the wanted values; None accepts every value.

    The partition may contain ``{seed}``, such as ``l8_{seed}``: seed 0 then has the labels of ``l8_0``.

    Raises:
        ValueError: No row has the value.
    """
    for key, value in wanted.items():
        if value is None:
            continue
        found = [
            row for row in rows if str(row[key]) == str(value).replace('{seed}', str(row['seed']))
        ]
        if not found:
            known = ', '.join(sorted({str(row[key]) for row in rows}))
            raise ValueError(f'No row has {key}={value}. The other options leave {known}.')
        rows = found
    return list(rows)


def tables(
    rows: Sequence[dict], partition: str | None = None, iou: str | None = None
) -> list[Table]:
    """Sort rows into tables, in the order of the rows.

    Trainings of several commits share a line if no seed occurs twice. Otherwise, each commit has its own line,
    since the commit may have changed the arithmetic or a config. So have repetitions by one commit.

    Args:
        rows: Stored rows.
        partition: Pattern that selected the rows; the name of the labels in the titles.
        iou: Class whose IoU is shown; None shows the mIoU.

    Raises:
        ValueError: A row has no such class.
    """
    found: dict[tuple, dict[tuple, Line]] = {}
    for row in rows:
        images = {key: value for key, value in row['options'].items() if key.startswith(_IMAGES)}
        settings = ', '.join(
            f'{key.removeprefix("model.semi_train_cfg.")}={json.dumps(value)}'
            for key, value in sorted(row['options'].items())
            if key not in images
        )
        hooks = json.dumps(row['hooks'], sort_keys=True)
        if row['val']:
            images['val_dataloader.dataset.ann_file'] = row['val']
        labels = partition or row['partition']
        key = (
            row['dataset'],
            labels,
            row['network'],
            row['steps'],
            json.dumps(images, sort_keys=True),
        )
        for network, score in row['scores'].items():
            commits = [row['commit'][:7]]
            new = Line(row['method'], network, settings, row['lr'], hooks, commits, {})
            lines = found.setdefault(key, {})
            same = (*new[:5], row['commit'])
            line = next(
                lines.setdefault((*same, number), new)
                for number in itertools.count()
                if row['seed'] not in lines.get((*same, number), new).values
            )
            value = _value(row, score, iou)
            if value is not None:
                line.values[row['seed']] = value
    return [Table(_title(*key, iou), _join(lines.values())) for key, lines in found.items()]


def _join(of_commits: Iterable[Line]) -> list[Line]:
    """Join lines of several commits that have no seed in common."""
    lines: list[Line] = []
    for new in of_commits:
        for line in lines:
            if line[:5] == new[:5] and not line.values.keys() & new.values.keys():
                line.commits.extend(new.commits)
                line.values.update(new.values)
                break
        else:
            lines.append(new)
    return [line for line in lines if line.values]


def _value(row: dict, score: dict, iou: str | None) -> float | None:
    """Return None for a class that neither the truth nor the predictions have."""
    if iou is None:
        return score['last']
    if iou not in score['class_iou']:
        raise ValueError(
            f'{row["dataset"]} has no class {iou!r}. Give one of {", ".join(score["class_iou"])}.'
        )
    return score['class_iou'][iou]


def _title(
    dataset: str, labels: str | None, network: str, steps: int, images: str, iou: str | None
) -> str:
    shown = METRIC if iou is None else f'IoU of {iou}'
    images = ''.join(f', {key}={value}' for key, value in json.loads(images).items())
    return f'{shown}, {dataset}, partition {labels}, {network}, {steps} steps{images}'


def markdown(table: Table, baseline: str) -> str:
    """Return a table with the gains over a baseline with the same seed and learning rate.

    Args:
        table: Lines that can be compared.
        baseline: Method of the baseline. If it has several lines, the first one with the seed counts.
    """
    seeds = sorted({seed for line in table.lines for seed in line.values})
    head = [
        'method',
        'settings',
        'lr',
        'commit',
        *(f'seed {seed}' for seed in seeds),
        'mean',
        'gain',
    ]
    return '\n'.join(
        [
            f'{table.title}\n',
            '| ' + ' | '.join(head) + ' |',
            '|---' * len(head) + '|',
            *('| ' + ' | '.join(cells) + ' |' for cells in _cells(table, baseline, seeds)),
        ]
    )


def _cells(table: Table, baseline: str, seeds: list[int]) -> Iterator[list[str]]:
    for line in table.lines:
        base = {}
        for other in table.lines:
            if other.method == baseline != line.method and other.lr == line.lr:
                base = {**other.values, **base}
        gains = {seed: value - base[seed] for seed, value in line.values.items() if seed in base}
        values = {
            seed: f'{value:.2f} ({gains[seed]:+.2f})' if seed in gains else f'{value:.2f}'
            for seed, value in line.values.items()
        }
        yield [
            f'{line.method}, {line.network}'.removesuffix(', '),
            line.settings,
            str(line.lr),
            ' '.join(line.commits),
            *(values.get(seed, '') for seed in seeds),
            str(Spread.of(list(line.values.values()))),
            f'{Spread.of(list(gains.values())).mean:+.2f}' if gains else '',
        ]
