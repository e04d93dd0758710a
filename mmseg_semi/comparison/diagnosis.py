"""What the log of a training shows when it does not learn, or learns less than a supervised one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..visualization import read_series

#: Scalars that say which share of the unlabeled pixels a method learns from.
RATIOS = ('confident_ratio', 'reliable_ratio', 'anchor_pixel_ratio')
ENTROPY = 'pseudo_label_entropy'
#: Loss terms that come from the labeled images alone.
LABELED = ('decode.', 'aux', 'loss_teacher', 'loss_labeled')
#: Fewest records of a scalar that say how it develops.
FEW = 4


@dataclass(frozen=True)
class Symptom:
    """Something that a log shows.

    Attributes:
        title (str): Heading of its section in docs/troubleshooting.md.
        evidence (str): The numbers that show it.
        remedy (str): What to try first, with the setting.
    """

    title: str
    evidence: str
    remedy: str

    @property
    def anchor(self) -> str:
        """Of the section."""
        return self.title.lower().replace(' ', '-')


class Log:
    """Scalars of one training by name and iteration, the last record of each iteration.

    Args:
        work_dir: Of the training, or of one stage of it.

    Raises:
        ValueError: Nothing is recorded there.
    """

    def __init__(self, work_dir: str | Path) -> None:
        self.work_dir = work_dir
        self.series = read_series(work_dir)
        if not self.series:
            raise ValueError(
                f'{work_dir} has no record in */vis_data/scalars.json. Name the work_dir of a training, or '
                'the folder of one of its stages.'
            )

    def values(self, key: str) -> list[float]:
        """All finite values of a scalar in the order of the iterations."""
        by_step = self.series.get(key, {})
        return [by_step[step] for step in sorted(by_step) if math.isfinite(by_step[step])]

    def networks(self, metric: str) -> dict[str, dict[int, float]]:
        """A metric of each network by iteration; a plain network's name is ''."""
        found = {}
        for key, by_step in self.series.items():
            network, _, name = key.rpartition('/')
            if name == metric:
                known = {step: v for step, v in sorted(by_step.items()) if math.isfinite(v)}
                if known:
                    found[network] = known
        return found

    def unlabeled_losses(self) -> list[str]:
        """Names of the loss terms that come from unlabeled images."""
        terms = (key for key in self.series if 'loss' in key and key != 'loss')
        return [key for key in terms if not any(part in key for part in LABELED)]


def diagnose(
    work_dir: str | Path, baseline: str | Path | None = None, metric: str = 'mIoU'
) -> list[Symptom]:
    """Look for the symptoms of docs/troubleshooting.md in a log.

    Args:
        work_dir: Of the training.
        baseline: Of a supervised training of the same network, validated on the same images.
        metric: That validation reports, higher is better.

    Returns:
        list[Symptom]: Those that it shows.

    Raises:
        ValueError: Nothing is recorded, or no ``metric`` where a baseline is given.
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
            'Let the param_scheduler end where train_cfg ends (leave `end` out), also after resuming with '
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
                'Try the learning rate on the labeled images alone first (a supervised config), and check the '
                'masks with tools/check_data.py.',
            )


def _unlabeled_loss(log: Log) -> Iterator[Symptom]:
    if not any(key in log.series for key in (*RATIOS, ENTROPY, 'ema_decay')):
        return  # a supervised training
    names = log.unlabeled_losses()
    late = {name: _mean(_tail(log.values(name), 0.5)) for name in names if log.values(name)}
    if not late or max(late.values()) <= 1e-8:
        said = ', '.join(f'{name} is {value:.1g}' for name, value in late.items())
        yield Symptom(
            'The unlabeled loss is 0',
            f'{said or "No loss term of unlabeled images is logged"} in the second half of the training.',
            'Let semi_train_cfg.unlabeled_start lie well before the end of the training, and its weight be '
            'above 0.',
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
                'Lower the threshold (semi_train_cfg.tau), let the labeled images settle first '
                '(semi_train_cfg.unlabeled_start), or start from pretrained weights.',
            )
        elif values[0] > 0.98:
            yield Symptom(
                'The confident ratio is 1 at once',
                f'{key} is {values[0]:.3f} in its first record.',
                'Raise the threshold (semi_train_cfg.tau), start later (unlabeled_start), or lower '
                'unlabeled_weight: it selects nothing now.',
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
            "Lower the decay of MeanTeacherHook (0.99 for short trainings), with warmup='ratio'; test the "
            "student (semi_test_cfg=dict(predict_on='student')).",
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
                'See whether it begins with the unlabeled images (unlabeled_start): then lower '
                'unlabeled_weight or raise the threshold; else lower the learning rate.',
            )


def _gain(log: Log, baseline: Log, metric: str) -> Iterator[Symptom]:
    mine, other = log.networks(metric), baseline.networks(metric)
    for owner, found in ((log, mine), (baseline, other)):
        if not found:
            raise ValueError(
                f'{owner.work_dir} has no {metric}: it was not validated, or name another --metric.'
            )
    reference = max(other.values(), key=lambda by_step: by_step[max(by_step)])
    network, scores = max(mine.items(), key=lambda item: item[1][max(item[1])])
    steps = sorted(scores.keys() & reference.keys())
    if not steps:
        raise ValueError(
            f'{log.work_dir} and {baseline.work_dir} have no iteration at which both were validated. '
            'Validate both at the same iterations.'
        )
    gains = {step: scores[step] - reference[step] for step in steps}
    last = steps[-1]
    if gains[last] < 0:
        history = ', '.join(f'{gain:+.2f} at {step}' for step, gain in gains.items())
        rising = len(steps) > 1 and gains[last] > gains[steps[0]]
        yield Symptom(
            'The gain is negative',
            f'{metric} of the {network or "network"} against the supervised training: {history}.',
            (
                'The gain rises. Train longer.'
                if rising
                else 'Start later (unlabeled_start), lower unlabeled_weight, and see whether all labels would '
                'gain at all with this network and length.'
            ),
        )
