"""Read the scalars that MMEngine's visualizer records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

#: Pattern of the files below the work folder of a training.
FILES = '*/vis_data/scalars.json'


def read_scalars(work_dir: str | Path) -> list[dict]:
    """Read the records of ``WORK_DIR/*/vis_data/scalars.json`` of all runs of a training, oldest first.

    A resumed run may repeat iterations that an interrupted run has recorded. Use the last record of an
    iteration.

    Args:
        work_dir: Work folder of a training or of one of its stages.

    Returns:
        One dict per line; ``step`` is the iteration. Empty if there is no record.

    Raises:
        ValueError: A line is incomplete, for example because the disk was full.
    """
    return [record for records in _starts(work_dir) for record in records]


def read_series(work_dir: str | Path) -> dict[str, dict[int, float]]:
    """Read each scalar of a training over its iterations, as if it had not been interrupted.

    The records of a resumed run replace all earlier records from its first iteration on. A training by epochs
    may record validations by epoch number, which is lower than the iterations before it. Such a record gets the
    preceding iteration.

    Args:
        work_dir: Work folder of a training or of one of its stages.

    Returns:
        ``{name: {iteration: value}}`` with increasing iterations. Empty if there is no record.
    """
    series: dict[str, dict[int, float]] = {}
    for records in filter(None, _starts(work_dir)):
        # A resumed training by epochs may begin with a validation. MMEngine's training records have 'iter'.
        begin = next((r['step'] for r in records if 'iter' in r), records[0]['step'])
        for name, values in series.items():
            series[name] = {step: value for step, value in values.items() if step < begin}
        iteration = max((step for values in series.values() for step in values), default=0)
        for record in records:
            iteration = max(iteration, record['step'])
            for name, value in record.items():
                if name != 'step' and isinstance(value, (int, float)):
                    series.setdefault(name, {})[iteration] = float(value)
    return {name: values for name, values in series.items() if values}


def _starts(work_dir: str | Path) -> Iterator[list[dict]]:
    """Yield the records of each run of a training, oldest first."""
    for file in sorted(Path(work_dir).glob(FILES)):
        # Text after the last line break is an incomplete record, of a running or interrupted run.
        *lines, _ = file.read_text(encoding='utf-8').split('\n')
        yield [
            _record(line, f'{file} line {number}')
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]


def _record(line: str, place: str) -> dict:
    try:
        return json.loads(line)
    except ValueError:
        raise ValueError(f'{place} is not a complete record. Remove the line.') from None
