"""Published results with the config, partition and options to reproduce each of them."""

from __future__ import annotations

import argparse
import csv
import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, DictAction

from ..compat import config_root
from ..visualization import read_scalars
from .configs import NAME, trainings_of
from .results import Score, read_scores

#: Path below the folder of configs.
FILE = 'published.csv'


class Published(NamedTuple):
    """One published result.

    Attributes:
        method (str): Name of the row in the table.
        dataset (str): 'VOC' or 'Cityscapes'.
        partition (str): Value of ``train_dataloader.dataset.partition``; 'trainaug' means all images.
        network (str): Network of the result.
        metric (str): mIoU.
        figure (float): Result in percent.
        source (str): Paper and table.
        reading (str): The choice made where paper, code and this package differ.
        config (str): Path below the folder of configs.
        options (str): Further settings, in the format of ``--cfg-options``.
        epochs (int): Epochs of the training that gives the result.
    """

    method: str
    dataset: str
    partition: str
    network: str
    metric: str
    figure: float
    source: str
    reading: str
    config: str
    options: str
    epochs: int

    @property
    def settings(self) -> list[str]:
        """All settings for ``--cfg-options``. A partition in the options has priority."""
        options = shlex.split(self.options)
        own = any(one.startswith('train_dataloader.dataset.partition=') for one in options)
        return [
            *([] if own else [f'train_dataloader.dataset.partition={self.partition}']),
            *options,
        ]

    @property
    def work_dir(self) -> Path:
        """Work folder, unique for each result."""
        name = f'{Path(self.config).stem}_{self.partition}'
        if self.options:
            name += f'_{self.method}'
        return Path('work_dirs', re.sub(r'[^\w.-]+', '-', name))

    @property
    def command(self) -> str:
        """The training command, with the number of GPUs in the config's name."""
        said = NAME.fullmatch(Path(self.config).name)
        gpus = said['schedule'].partition('x')[0]
        tool = 'bash tools/dist_train.sh' if gpus != '1' else 'python tools/train.py'
        number = f' {gpus}' if gpus != '1' else ''
        return (
            f'{tool} configs/{self.config}{number} --work-dir {self.work_dir} --cfg-options '
            f'{" ".join(map(_quoted, self.settings))}'
        )

    def load(self) -> Config:
        """Return the config with all settings."""
        cfg = Config.fromfile(config_root('mmseg_semi') / self.config, format_python_code=False)
        parser = argparse.ArgumentParser()
        parser.add_argument('--options', nargs='+', action=DictAction)
        cfg.merge_from_dict(parser.parse_args(['--options', *self.settings]).options)
        cfg.work_dir = str(self.work_dir)
        return cfg

    def measured(self, work_dir: str | Path | None = None) -> tuple[int, dict[str, Score]]:
        """Return the step of the last validation of a run, and the last and best value by network.

        Args:
            work_dir: Folder of the run. Default: :attr:`work_dir`.

        Raises:
            ValueError: The run has not been validated.
        """
        cfg = self.load()
        stage = cfg.get('run_stages') or list(trainings_of(cfg))[-1]
        folder = Path(work_dir or self.work_dir, stage)
        steps = [
            record['step']
            for record in read_scalars(folder)
            if any(key.rpartition('/')[2] == self.metric for key in record)
        ]
        if not steps:
            raise ValueError(
                f'{folder} has no {self.metric} yet. Run the command, or give --work-dir.'
            )
        return max(steps), read_scores(folder, self.metric, max(steps))


def read_published() -> list[Published]:
    """Return all published results in the order of the tables."""
    with (config_root('mmseg_semi') / FILE).open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    return [
        Published(**{**row, 'figure': float(row['figure']), 'epochs': int(row['epochs'])})
        for row in rows
    ]


def find_published(words: Iterable[str], rows: Sequence[Published]) -> list[Published]:
    """Find results with all words in method, dataset, partition, network, reading or source.

    Args:
        words: Search words, such as ``['iMAS', 'VOC', 'classic', '183']``. Numbers must match completely.
        rows: Results to search.

    Returns:
        Matching results. Methods with the fewest additional words in their names come first.
    """
    wanted = [word.lower() for text in words for word in re.split(r'[\s/,]+', text) if word]
    found = [row for row in rows if all(_has(row, word) for word in wanted)]
    rest = {id(row): len(set(_words(row.method)) - set(wanted)) for row in found}
    return sorted(found, key=lambda row: rest[id(row)])


def published_table(rows: Sequence[Published]) -> str:
    """Return a Markdown table of all results. Results that only differ in the partition share a row."""
    lines = [
        '| method | data | network | published | source | config and options |',
        '|---' * 6 + '|',
    ]
    for key, group in groupby(rows, lambda row: row._replace(partition='', figure=0.0, epochs=0)):
        several = list(group)
        families = groupby(several, lambda row: row.partition.rpartition('/')[0])
        data = ', '.join(
            _braced(family, [row.partition for row in part]) for family, part in families
        )
        figures = ' '.join(f'{row.figure:g}' for row in several)
        told = '; '.join(filter(None, [key.source, key.reading]))
        options = f' `{key.options}`' if key.options else ''
        cells = [
            key.method,
            f'{key.dataset} `{data}`',
            key.network,
            figures,
            told,
            f'`{Path(key.config).stem}`{options}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _braced(family: str, partitions: list[str]) -> str:
    last = [name.rpartition('/')[2] for name in partitions]
    inner = last[0] if len(last) == 1 else f'{{{",".join(last)}}}'
    return f'{family}/{inner}' if family else inner


def _words(text: str) -> list[str]:
    return [word for word in re.split(r'[\s/,:;]+', text.lower()) if word]


def _has(row: Published, word: str) -> bool:
    network = row.network.replace('ResNet-', 'R')
    known = _words(' '.join([*row[:4], network, row.source, row.reading]))
    known += [part for one in known for part in one.split('-')]
    return word in known


def _quoted(setting: str) -> str:
    # A shell does not expand braces without a comma.
    return setting if re.fullmatch(r'[\w.=/:{}+-]+', setting) else shlex.quote(setting)
