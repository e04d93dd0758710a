"""The figures that papers print, each with the config, partition and options that train for it."""

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

#: Below the folder of configs.
FILE = 'published.csv'


class Published(NamedTuple):
    """One printed figure.

    Attributes:
        method (str): As the table calls the row.
        dataset (str): 'VOC' or 'Cityscapes'.
        partition (str): As ``train_dataloader.dataset.partition`` takes it; 'trainaug' is all images.
        network (str): That of the figure.
        metric (str): mIoU.
        figure (float): In percent.
        source (str): Paper and table.
        reading (str): What is chosen where paper, code and this package differ.
        config (str): Path below the folder of configs.
        options (str): Further settings, as ``--cfg-options`` takes them.
        epochs (int): Of the training that makes the result.
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
        """All that ``--cfg-options`` gets; a partition that the options set is theirs."""
        options = shlex.split(self.options)
        own = any(one.startswith('train_dataloader.dataset.partition=') for one in options)
        return [
            *([] if own else [f'train_dataloader.dataset.partition={self.partition}']),
            *options,
        ]

    @property
    def work_dir(self) -> Path:
        """A folder that no other figure is trained in."""
        name = f'{Path(self.config).stem}_{self.partition}'
        if self.options:
            name += f'_{self.method}'
        return Path('work_dirs', re.sub(r'[^\w.-]+', '-', name))

    @property
    def command(self) -> str:
        """What trains for it, on as many GPUs as the config's name says."""
        said = NAME.fullmatch(Path(self.config).name)
        gpus = said['schedule'].partition('x')[0]
        tool = 'bash tools/dist_train.sh' if gpus != '1' else 'python tools/train.py'
        number = f' {gpus}' if gpus != '1' else ''
        return (
            f'{tool} configs/{self.config}{number} --work-dir {self.work_dir} --cfg-options '
            f'{" ".join(map(_quoted, self.settings))}'
        )

    def load(self) -> Config:
        """The config with all settings."""
        cfg = Config.fromfile(config_root('mmseg_semi') / self.config, format_python_code=False)
        parser = argparse.ArgumentParser()
        parser.add_argument('--options', nargs='+', action=DictAction)
        cfg.merge_from_dict(parser.parse_args(['--options', *self.settings]).options)
        cfg.work_dir = str(self.work_dir)
        return cfg

    def measured(self, work_dir: str | Path | None = None) -> tuple[int, dict[str, Score]]:
        """Step of the last validation of the run in a folder, and by network its value and the best one.

        Args:
            work_dir: of the run; its own where it is not given.

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
                f'{folder} has no {self.metric} yet. Run the command, or name --work-dir.'
            )
        return max(steps), read_scores(folder, self.metric, max(steps))


def read_published() -> list[Published]:
    """All figures, in the order of the tables."""
    with (config_root('mmseg_semi') / FILE).open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    return [
        Published(**{**row, 'figure': float(row['figure']), 'epochs': int(row['epochs'])})
        for row in rows
    ]


def find_published(words: Iterable[str], rows: Sequence[Published]) -> list[Published]:
    """The figures that have all words in method, data set, partition, network, reading or source.

    Args:
        words: such as ``['iMAS', 'VOC', 'classic', '183']``; a number must be one as a whole.
        rows: to be searched.

    Returns:
        Those of methods with the fewest other words in their names first.
    """
    wanted = [word.lower() for text in words for word in re.split(r'[\s/,]+', text) if word]
    found = [row for row in rows if all(_has(row, word) for word in wanted)]
    rest = {id(row): len(set(_words(row.method)) - set(wanted)) for row in found}
    return sorted(found, key=lambda row: rest[id(row)])


def published_table(rows: Sequence[Published]) -> str:
    """A Markdown table of all figures, those that differ in the partition alone in one line."""
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
    # Braces without a comma are plain text to a shell.
    return setting if re.fullmatch(r'[\w.=/:{}+-]+', setting) else shlex.quote(setting)
