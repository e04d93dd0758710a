"""Read the results of a finished run from its logs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..datasets.pseudo_labeled import LABELS_SUMMARY
from ..engine.hooks.cost_hook import COSTS
from ..engine.runner.stages import build_stages
from ..visualization import read_scalars
from .configs import trainings_of
from .fairness import children, images_of, images_per_iteration, iterations_of, steps_of


class Score(NamedTuple):
    """Metric of one network at the last iteration and at the best validation."""

    last: float
    best: float
    best_iteration: int


class TrainingCost(NamedTuple):
    """Length of one training of a method, and its images over all processes, with repetitions.

    Attributes:
        stage (str): Name of the stage; '' for a method with one training.
        iterations, labeled_seen, unlabeled_seen (int): See :class:`Cost`.
        steps (int): Optimizer steps; fewer than iterations with gradient accumulation.
    """

    stage: str
    iterations: int
    steps: int
    labeled_seen: int
    unlabeled_seen: int

    def __str__(self) -> str:
        seen = f'{self.labeled_seen} labeled and {self.unlabeled_seen} unlabeled images'
        return f'{self.stage} {self.steps} steps ({seen})'.strip()


class Cost(NamedTuple):
    """Cost of a run. With several stages, the time is that of the last training, and the rest is the total.

    Attributes:
        seconds_per_iteration (float): Median time.
        peak_memory_mib (float): See :class:`~mmseg_semi.engine.CostHook`.
        memory_kind (str): ``'allocated'``, ``'resident'`` or ``'inherited'``.
        device (str): Name of the GPU, or CPU.
        iterations (int): Iterations of the training that gives the result.
        total_iterations (int): Iterations of all trainings.
        trainings (tuple[TrainingCost, ...]): All trainings. The last one gives the result.
        labeled_seen, unlabeled_seen (int): Images over all trainings and processes, with repetitions. For
            self-training these are expected values.
    """

    seconds_per_iteration: float
    peak_memory_mib: float
    memory_kind: str
    device: str
    iterations: int
    total_iterations: int
    trainings: tuple[TrainingCost, ...]
    labeled_seen: int
    unlabeled_seen: int


def read_validations(folder: str | Path, metric: str) -> dict[str, dict[int, float]]:
    """Return a metric of every validation of a training.

    Args:
        folder: Folder of the training.
        metric: For example ``mIoU``; networks of a method report it as ``NETWORK/mIoU``.

    Returns:
        Values by network and iteration. The name of a plain model is ``''``.

    Raises:
        ValueError: There is no validation.
    """
    values: dict[str, dict[int, float]] = {}
    for record in read_scalars(folder):
        for key, value in record.items():
            network, _, name = key.rpartition('/')
            # MMEngine writes undefined metrics as NaN.
            if name == metric and math.isfinite(value):
                values.setdefault(network, {})[record['step']] = value
    if not values:
        raise ValueError(
            f'{folder} has no {metric} in */vis_data/scalars.json. Validate the run, or set --metric to a '
            'metric of val_evaluator.'
        )
    return values


def read_scores(folder: str | Path, metric: str, iterations: int) -> dict[str, Score]:
    """Return last and best value of a metric for every network of a training.

    Args:
        folder, metric: See :func:`read_validations`.
        iterations: Iterations of the whole training.

    Returns:
        Scores by network. The name of a plain model is ``''``.

    Raises:
        ValueError: There is no validation at all, or none at the last iteration.
    """
    scores = {}
    for network, by_step in read_validations(folder, metric).items():
        if iterations not in by_step:
            raise ValueError(
                f'{folder} has no {network or "validation"} {metric} of iteration {iterations}, only up to '
                f'iteration {max(by_step)}. Finish the run with a validation at its end.'
            )
        best = max(by_step, key=by_step.get)
        scores[network] = Score(by_step[iterations], by_step[best], best)
    return scores


def read_class_ious(folder: str | Path, iterations: int) -> dict[str, dict[str, float | None]]:
    """Return the IoU of every class at the last iteration of a training with a ClassIoUMetric.

    Args:
        folder: Folder of the training.
        iterations: Iterations of the whole training.

    Returns:
        IoU in percent by network and class; None for a class in neither ground truth nor predictions. The name
        of a plain model is ``''``.
    """
    found: dict[str, dict[str, float | None]] = {}
    for record in read_scalars(folder):
        for key, value in record.items():
            network, _, name = key.rpartition('/')
            if name.startswith('IoU.') and record['step'] == iterations:
                known = value if math.isfinite(value) else None
                found.setdefault(network, {})[name.removeprefix('IoU.')] = known
    return found


def read_cost(cfg: Config, processes: int) -> Cost:
    """Return the :class:`Cost` of a finished run of a resolved config.

    Raises:
        FileNotFoundError: A training is not finished, or had no CostHook.
    """
    trainings = trainings_of(cfg)
    costs = {name: _costs(Path(cfg.work_dir, name)) for name in trainings}
    each = []
    for name, training in trainings.items():
        labeled, _ = children(training)
        per_step = images_per_iteration(
            training, len(images_of('labeled', labeled)), _num_pseudo_labels(cfg, name)
        )
        iterations = iterations_of(training)
        seen = (round(images * iterations * processes) for images in per_step)
        each.append(TrainingCost(name, iterations, steps_of(training), *seen))
    *_, last = trainings
    return Cost(
        seconds_per_iteration=costs[last]['seconds_per_iteration'],
        peak_memory_mib=max(cost['peak_memory_mib'] for cost in costs.values()),
        memory_kind=costs[last]['memory_kind'],
        device=costs[last]['device'],
        iterations=each[-1].iterations,
        total_iterations=sum(one.iterations for one in each),
        trainings=tuple(each),
        labeled_seen=sum(one.labeled_seen for one in each),
        unlabeled_seen=sum(one.unlabeled_seen for one in each),
    )


def _costs(folder: Path) -> dict:
    file = folder / COSTS
    if not file.is_file():
        raise FileNotFoundError(
            f'{file} does not exist, so the training in {folder} is not finished. Finish it first.'
        )
    return json.loads(file.read_text(encoding='utf-8'))


def _num_pseudo_labels(cfg: Config, stage: str) -> int:
    """Return the number of pseudo-labeled images of a stage."""
    if not stage:
        return 0
    built = build_stages(cfg)[stage]
    dataset = built.resolve(built.config().train_dataloader.dataset.to_dict())
    folders = (dataset.get('pseudo_labeled') or {}).get('labels') or ()
    files = [Path(folder, LABELS_SUMMARY) for folder in folders]
    return sum(json.loads(file.read_text(encoding='utf-8'))['num_images'] for file in files)
