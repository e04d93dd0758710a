"""Find symptoms in the log of a training that does not learn or is worse than supervised training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..visualization import read_series

#: Scalars with the fraction of unlabeled pixels in the loss.
RATIOS = ('confident_ratio', 'reliable_ratio', 'anchor_pixel_ratio')
ENTROPY = 'pseudo_label_entropy'
#: Loss terms of labeled images.
LABELED = ('decode.', 'aux', 'loss_teacher', 'loss_labeled')
#: Minimum number of records to judge the trend of a scalar.
FEW = 4


@dataclass(frozen=True)
class Symptom:
    """A symptom found in a log.

    Attributes:
        title (str): Heading of its section in docs/troubleshooting.md.
        evidence (str): Numbers that show the symptom.
        remedy (str): First remedy to try, with the setting.
    """

    title: str
    evidence: str
    remedy: str

    @property
    def anchor(self) -> str:
        """Anchor of the section."""
        return self.title.lower().replace(' ', '-')


class Log:
    """Scalars of one training by name and iteration, with the last record of each iteration.

    Args:
        work_dir: Work folder of the training, or folder of one of its stages.

    Raises:
        ValueError: The folder has no records.
    """

    def __init__(self, work_dir: str | Path) -> None:
        self.work_dir = work_dir
        self.series = read_series(work_dir)
        if not self.series:
            raise ValueError(
                f'{work_dir} has no record in */vis_data/scalars.json. Give the work folder of a training, or '
                'the folder of one of its stages.'
            )

    def values(self, key: str) -> list[float]:
        """Return all finite values of a scalar by increasing iteration."""
        by_step = self.series.get(key, {})
        return [by_step[step] for step in sorted(by_step) if math.isfinite(by_step[step])]

    def networks(self, metric: str) -> dict[str, dict[int, float]]:
        """Return a metric of each network by iteration. The name of a plain network is ''."""
        found = {}
        for key, by_step in self.series.items():
            network, _, name = key.rpartition('/')
            if name == metric:
                known = {step: v for step, v in sorted(by_step.items()) if math.isfinite(v)}
                if known:
                    found[network] = known
        return found

    def has_unlabeled(self) -> bool:
        """Return whether a method with unlabeled images in each batch wrote the log."""
        return any(key in self.series for key in (*RATIOS, ENTROPY, 'ema_decay'))

    def unlabeled_losses(self) -> list[str]:
        """Return the names of the loss terms of unlabeled images."""
        terms = (key for key in self.series if 'loss' in key and key != 'loss')
        return [key for key in terms if not any(part in key for part in LABELED)]


def diagnose(
    work_dir: str | Path, baseline: str | Path | None = None, metric: str = 'mIoU'
) -> list[Symptom]:
    """Find the symptoms of docs/troubleshooting.md in a log.

    Args:
        work_dir: Work folder of the training.
        baseline: Work folder of a supervised training of the same network with the same validation images.
        metric: Metric of the validation; higher is better.

    Returns:
        list[Symptom]: Symptoms in the log.

    Raises:
        ValueError: There are no records, or a baseline is given and ``metric`` is missing.
    """
    log = Log(work_dir)
    found = [
        *_learning_rate(log),
        *_loss(log),
        *_unlabeled_loss(log),
        *_confident_ratio(log),
        *_classes(log),
        *_networks(log, metric),
        *_falls(log, metric),
    ]
    if baseline is not None:
        found += _gain(log, Log(baseline), metric)
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _tail(values: list[float], share: float) -> list[float]:
    return values[-max(1, round(len(values) * share)) :]


def _learning_rate(log: Log) -> Iterator[Symptom]:
    by_step = log.series.get('lr', {})
    rates = log.values('lr')
    if len(rates) < FEW:
        return
    negligible = max(rates) * 1e-6
    zero = [step for step in sorted(by_step) if by_step[step] <= negligible]
    if len(zero) > len(rates) / 5:
        yield Symptom(
            'The learning rate is 0',
            f'lr is 0 in {len(zero)} of {len(rates)} records, from iteration {zero[0]} on; its highest value '
            f'is {max(rates):.3g}.',
            'Let the param_scheduler end with the training (remove its `end`), also after resuming with '
            'another length.',
        )


def _loss(log: Log) -> Iterator[Symptom]:
    losses = log.values('loss')
    broken = [s for s, v in sorted(log.series.get('loss', {}).items()) if not math.isfinite(v)]
    if broken:
        yield Symptom(
            'The loss is not finite',
            f'loss is not finite at iteration {broken[0]}.',
            'Lower the learning rate, add a warm-up (LinearLR), or clip the gradients '
            '(optim_wrapper.clip_grad).',
        )
    terms = [key for key in log.series if key.startswith('decode.loss')] or ['loss']
    losses = log.values(terms[0])
    if len(losses) >= 2 * FEW:
        first, last = _mean(losses[: len(losses) // FEW]), _mean(_tail(losses, 1 / FEW))
        if last > 0.95 * first:
            yield Symptom(
                'The labeled loss does not fall',
                f'{terms[0]} is {first:.3g} in the first quarter and {last:.3g} in the last.',
                'First try the learning rate with labeled images only (a supervised config), and check the '
                'masks with tools/check_data.py.',
            )


def _unlabeled_loss(log: Log) -> Iterator[Symptom]:
    if not log.has_unlabeled():
        return  # a supervised training, or a stage of ST
    names = log.unlabeled_losses()
    late = {name: _mean(_tail(log.values(name), 0.5)) for name in names if log.values(name)}
    if not late or max(late.values()) <= 1e-8:
        said = ', '.join(f'{name} is {value:.1g}' for name, value in late.items())
        yield Symptom(
            'The unlabeled loss is 0',
            f'{said or "No loss term of unlabeled images is logged"} in the second half of the training.',
            'Set semi_train_cfg.unlabeled_start well below the length of the training, and the weight of the '
            'loss above 0.',
        )


def _confident_ratio(log: Log) -> Iterator[Symptom]:
    for key in RATIOS:
        values = log.values(key)
        if len(values) < FEW:
            continue
        last = _mean(_tail(values, 1 / 3))
        if last < 0.01:
            yield Symptom(
                'The confident ratio stays 0',
                f'{key} is {last:.4f} in the last third of the training.',
                'Lower the threshold (semi_train_cfg.tau), start later (semi_train_cfg.unlabeled_start), or '
                'start from pre-trained weights.',
            )
        elif values[0] > 0.98:
            yield Symptom(
                'The confident ratio is 1 at once',
                f'{key} is {values[0]:.3f} in its first record.',
                'Raise the threshold (semi_train_cfg.tau), which keeps all pixels now, start later '
                '(unlabeled_start), or lower unlabeled_weight.',
            )


def _classes(log: Log) -> Iterator[Symptom]:
    values = log.values(ENTROPY)
    if len(values) >= FEW:
        highest, last = max(values), _mean(_tail(values, 1 / 4))
        if last < 0.05 or last < highest / 4:
            yield Symptom(
                'The pseudo-labels become one class',
                f'{ENTROPY} (0: one class) is {last:.3f} in the last quarter, {highest:.3f} at its highest.',
                'Lower the threshold (semi_train_cfg.tau), which rare classes do not reach, start later '
                '(unlabeled_start), and lower unlabeled_weight.',
            )


def _networks(log: Log, metric: str) -> Iterator[Symptom]:
    networks = log.networks(metric)
    if not {'teacher', 'student'} <= networks.keys():
        return
    step = max(networks['teacher'].keys() & networks['student'].keys())
    teacher, student = networks['teacher'][step], networks['student'][step]
    said = f'At iteration {step} the teacher has {metric} {teacher:.2f}, the student {student:.2f}.'
    if teacher < student - 1:
        yield Symptom(
            'The teacher is behind the student',
            said,
            'Lower the decay of MeanTeacherHook, so that the average covers at most a twelfth of the training '
            "(0.99 for 1,200 steps, 0.98 for 600), with warmup='ratio'; test the student "
            "(semi_test_cfg=dict(predict_on='student')).",
        )
    elif student < teacher - 5:
        yield Symptom(
            'The student is far behind the teacher',
            said,
            "Test the teacher (semi_test_cfg=dict(predict_on='teacher')); the student's batch norm has the "
            'statistics of strong views (tools/pseudo_label_quality.py --batch-norm both shows it).',
        )


def _falls(log: Log, metric: str) -> Iterator[Symptom]:
    for network, by_step in log.networks(metric).items():
        best, last = max(by_step, key=by_step.get), max(by_step)
        if by_step[last] < by_step[best] - 3:
            yield Symptom(
                'The metric falls again',
                f'{network or "The network"} has {metric} {by_step[best]:.2f} at iteration {best} and '
                f'{by_step[last]:.2f} at {last}.',
                'If it starts with the unlabeled images (unlabeled_start), lower unlabeled_weight or raise the '
                'threshold. Otherwise, lower the learning rate.',
            )


def _gain(log: Log, baseline: Log, metric: str) -> Iterator[Symptom]:
    mine, other = log.networks(metric), baseline.networks(metric)
    for owner, found in ((log, mine), (baseline, other)):
        if not found:
            raise ValueError(
                f'{owner.work_dir} has no {metric}. Validate the training, or give another --metric.'
            )
    reference = max(other.values(), key=lambda by_step: by_step[max(by_step)])
    network, scores = max(mine.items(), key=lambda item: item[1][max(item[1])])
    steps = sorted(scores.keys() & reference.keys())
    if not steps:
        raise ValueError(
            f'{log.work_dir} and {baseline.work_dir} were validated at different iterations. '
            'Validate both at the same iterations.'
        )
    gains = {step: scores[step] - reference[step] for step in steps}
    last = steps[-1]
    if gains[last] < 0:
        history = ', '.join(f'{gain:+.2f} at {step}' for step, gain in gains.items())
        rising = len(steps) > 1 and gains[last] > gains[steps[0]]
        if rising:
            remedy = 'The gain rises. Train longer.'
        else:
            remedy = (
                'End the unlabeled loss earlier (unlabeled_end_fraction=2/3), start later (unlabeled_start), '
                'or lower unlabeled_weight'
                if log.has_unlabeled() or log.unlabeled_losses()
                else 'With ST, look at the class shares in the log of the pseudo-labels, train the teacher '
                'longer, or leave out uncertain pixels (stages.label.threshold)'
            )
            remedy += '. Check that a supervised training with all labels gains with this network and length.'
        yield Symptom(
            'The gain is negative',
            f'{metric} of the {network or "network"} against the supervised training: {history}.',
            remedy,
        )
