"""Read the scalars that MMEngine's visualizer has written."""

from __future__ import annotations

import json
from pathlib import Path


def read_scalars(work_dir: str | Path) -> list[dict]:
    """Read the records of ``WORK_DIR/*/vis_data/scalars.json`` over all starts of a training, oldest first.

    A killed run may have recorded iterations that its successor records again: whoever wants one record of
    an iteration takes the last.

    Args:
        work_dir: of the training, or of one stage of it.

    Returns:
        One dict per line; ``step`` is the iteration. Empty when nothing is recorded.
    """
    records = []
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        # The last line has no end: it is being written, or its run was killed in it, if there is anything.
        *lines, _ = file.read_text(encoding='utf-8').split('\n')
        records += [json.loads(line) for line in lines]
    return records
