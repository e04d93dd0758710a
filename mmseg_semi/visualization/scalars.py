"""Read the scalars that MMEngine's visualizer has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

#: Below the folder of a training.
FILES = '*/vis_data/scalars.json'


def read_scalars(work_dir: str | Path) -> list[dict]:
    """Read the records of ``WORK_DIR/*/vis_data/scalars.json`` over all starts of a training, oldest first.

    A killed run may have recorded iterations that its successor records again: whoever wants one record of
    an iteration takes the last.

    Args:
        work_dir: of the training, or of one stage of it.

    Returns:
        One dict per line; ``step`` is the iteration. Empty when nothing is recorded.
    """
    return [record for records in _starts(work_dir) for record in records]


def read_series(work_dir: str | Path) -> dict[str, dict[int, float]]:
    """Read each scalar of a training over its iterations, as if it had not been interrupted.

    From the first iteration that a later start has recorded, it replaces all that earlier starts have recorded.
    A training by epochs may record its validations by the number of the epoch, which is lower than the
    iterations before it. Such a record gets the last iteration before it.

    Args:
        work_dir: of the training, or of one stage of it.

    Returns:
        ``{name: {iteration: value}}``, the iterations rising. Empty when nothing is recorded.
    """
    series: dict[str, dict[int, float]] = {}
    for records in filter(None, _starts(work_dir)):
        # A resumed training by epochs may begin with a validation. What MMEngine logs of training has 'iter'.
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
    """The records of each start of a training, oldest first."""
    for file in sorted(Path(work_dir).glob(FILES)):
        # The last line has no end: it is being written, or its run was killed in it, if there is anything.
        *lines, _ = file.read_text(encoding='utf-8').split('\n')
        yield [json.loads(line) for line in lines]
