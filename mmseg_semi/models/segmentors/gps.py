"""GPS: a teacher guides two students and learns from them in turn (WACV 2024)."""

from __future__ import annotations

import logging
import os.path as osp
from typing import Literal

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import pixel_agreement
from ...functional.losses import cross_entropy
from ...functional.pseudo_label import average_label
from ..batch import VOID, Batch
from ..checkpoints import read_checkpoint
from ..losses import is_plain_cross_entropy
from ..ramp_up import AdaptiveRampUp
from ..settings import setting
from .independent import IndependentSegmentor
from .networks import NetworkOutput


@MODELS.register_module()
class GPS(IndependentSegmentor):
    """GPS, "Guided Pseudo Supervision", a teacher and two students that teach each other.

    Each iteration makes two updates. The students learn the labeled images, the teacher's labels of the
    unlabeled ones and each other's (Eq. 4-6). Then the teacher learns the labeled images and what the *updated*
    students together say of the same unlabeled ones (Eq. 8, 10). The weight of the latter grows until the
    students do as well on the labeled images as the teacher (Eq. 9), see
    :class:`~mmseg_semi.engine.AdaptiveRampUpHook`. No network averages another, and no loss of the students
    reaches the teacher, nor one of the teacher the students. One student is the result.

    The teacher is trained on the labeled images beforehand and then learns at a constant rate, see
    :class:`~mmseg_semi.engine.FinalPolyLR`. Where the paper is silent, docs/gps.md says how it is read.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(IndependentSegmentor.Settings):
        alpha: float = setting(
            0.5, "Factor of the teacher's guidance; on Cityscapes 1.", low=0, source='Eq. 5'
        )
        beta: float = setting(
            1.5, 'Factor of the cross supervision; on Cityscapes 5.', low=0, source='Eq. 6'
        )
        gamma: float = setting(
            0.5,
            "Factor of the students' feedback to the teacher; on Cityscapes 1.",
            low=0,
            source='Eq. 10',
        )
        guidance: Literal['constant', 'ramp_down'] = setting(
            'constant',
            'The guidance has its full weight to the end, or in epoch e of E the factor exp(-((e - 1) / E)^2), '
            'which is the growth of Eq. 9 read backwards, whenever the students catch up.',
            source='ablation of the ramp-down',
            reading='the formula of the ramp-down',
        )
        gps: bool = setting(True, 'Guidance; False leaves the term out.', source='Eq. 5, Table 4')
        cps: bool = setting(
            True, 'Cross supervision; False leaves the term out.', source='Eq. 6, Table 4'
        )
        fps: bool = setting(True, 'Feedback; False leaves the term out.', source='Eq. 10, Table 4')
        update: Literal['alternating', 'merged'] = setting(
            'alternating',
            'The teacher learns from the students as they are after their update, or as they were before it, '
            'which makes the two updates one of the sum of both losses.',
            reading='when the teacher learns from the students (Eq. 10)',
        )
        teacher_checkpoint: str | None = setting(
            None,
            'Checkpoint of the plain network that the teacher starts from, unless a resumed or loaded '
            'checkpoint of this method brings a teacher.',
            source='Eq. 2',
            reading='start of the teacher',
        )
        teacher_lr_scale: float = setting(
            1.0,
            "Factor of the teacher's learning rate, which is about 1e-6 in the paper.",
            low=0,
            source='Sec. 3.2',
            reading="factor of the teacher's learning rate",
        )

    cfg: Settings
    networks = built_networks = ('student1', 'student2', 'teacher')
    optimized = {'students': ('student1', 'student2'), 'teacher': ('teacher',)}
    updates = {'students': 'students_loss', 'teacher': 'teacher_loss'}
    required_hooks = ('AdaptiveRampUpHook',)
    renamed_modules = {
        'labeled_sums': 'ramp_up.labeled_sums',
        'latch_epoch': 'ramp_up.latch_epoch',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.ramp_up = AdaptiveRampUp()
        self._teacher_loaded = False

    def lr_scale(self, wrapper: str) -> float:
        return self.cfg.teacher_lr_scale if wrapper == 'teacher' else 1.0

    @property
    def updates_in_turn(self) -> bool:
        return self.cfg.update == 'alternating'

    # ------------------------------------------------------------------ the two updates
    def students_loss(self, batch: Batch) -> dict[str, Tensor]:
        """L_guide (Eq. 4-6), each term summed over the two students."""
        cfg, weak, left = self.cfg, batch.weak.images, batch.left
        losses = self.labeled_only_loss(batch, 'students')
        if not (cfg.gps or cfg.cps or cfg.fps):
            return losses
        mix = left['mix'] = self.cutmix.plan(len(weak), batch.size, weak.device)
        images = left['images'] = mix(weak)
        students = [self.student1, self.student2]
        merged = cfg.fps and cfg.update == 'merged'
        labels, logits = {}, []
        if cfg.cutmix is None and cfg.fps and self.clock.accumulation == 1:
            # The teacher learns the images that it labels, so one forward serves both updates. Batches that
            # are held until a step ends would hold its graph.
            left['teacher_logits'] = self.forward_network(self.teacher, images).logits
        if cfg.gps:
            known = left.get('teacher_logits')
            known = self.label_weak(self.teacher, batch) if known is None else known.detach()
            labels['teacher'] = self.hard_label(known, batch, mix)
        if cfg.gps or cfg.cps:
            logits = [self.forward_network(student, images).logits for student in students]
        if cfg.cps or merged:
            same = logits and cfg.cutmix is None
            own = logits if same else [self.label_weak(student, batch) for student in students]
            own = [one.detach() for one in own]
        if merged:
            left['student_logits'] = own
        if cfg.cps:
            known = [self.hard_label(one, batch, mix) for one in own]
            labels.update(zip(self.students, known, strict=True))
        if cfg.gps:
            guidance = sum(self.pseudo_loss(one, labels['teacher']) for one in logits)
            factor = self.ramp_up.guidance if cfg.guidance == 'ramp_down' else 1.0
            losses['loss_gps'] = factor * cfg.alpha * guidance
        if cfg.cps:
            losses['loss_cps'] = cfg.beta * self.cross_loss(logits, known)
        return {**losses, **self.labels_log(labels, batch)}

    def teacher_loss(self, batch: Batch) -> dict[str, Tensor]:
        """L_fb (Eq. 10), with the labels of the students as they are now (Eq. 8)."""
        cfg, left = self.cfg, batch.left
        losses = self.labeled_only_loss(batch, 'teacher')
        has_label = (batch.labeled.label != VOID).any()
        self.ramp_up.observe(losses['labeled_ce_students'], losses['labeled_ce_teacher'], has_label)
        if not cfg.fps:
            return losses
        known = left.get('student_logits')
        if known is None:
            known = [self.label_weak(one, batch) for one in (self.student1, self.student2)]
        label = self.without_ignored(average_label(known, batch.size, self.align_corners))
        label = self.mixed_label(label, batch, left['mix'])
        logits = left.get('teacher_logits')
        if logits is None:
            logits = self.forward_network(self.teacher, left['images']).logits
        losses['loss_fps'] = self.ramp_up.weight * cfg.gamma * self.pseudo_loss(logits, label)
        return losses

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """The labeled losses of an update, and with the teacher's what the ramp-up compares."""
        outputs, losses = self.learn_labeled(batch, self.optimized[update])
        entropy = self.labeled_ce(outputs, losses, batch)
        if update == 'students':
            batch.left['labeled_ce'] = entropy
            return losses
        compared = {'labeled_ce_students': batch.left['labeled_ce'], 'labeled_ce_teacher': entropy}
        return {**losses, **compared}

    @torch.no_grad()
    def labeled_ce(
        self, outputs: dict[str, NetworkOutput], losses: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        """Plain cross-entropy of the labeled images, whatever loss the heads have: the networks' mean.

        Args:
            outputs (dict[str, NetworkOutput]): Of the networks, by name.
            losses (dict[str, Tensor]): What :meth:`learn_labeled` made of them, in which it may be already.
            batch (Batch): The batch.
        """
        values = []
        for name, output in outputs.items():
            head = getattr(self, name).decode_head
            if is_plain_cross_entropy(head) and self.cfg.labeled_weight == 1:
                values.append(losses[f'{name}.decode.{head.loss_decode.loss_name}'].detach())
                continue
            label = batch.labeled.label
            values.append(cross_entropy(output.logits, label, align_corners=self.align_corners))
        return sum(values) / len(values)

    def labels_log(self, labels: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalars on pseudo-labels (N, H, W) by network: their entropy, and how far pairs of them agree."""
        scalars = {}
        if 'teacher' in labels:
            mix, label = batch.left['mix'], labels['teacher']
            scalars['pseudo_label_entropy'] = self.mixed_label_entropy(label, batch, mix)
        known = next(iter(labels.values())) != 255 if labels else None
        for name, first, second in (
            ('students', *self.students),
            ('teacher_student1', 'teacher', 'student1'),
            ('teacher_student2', 'teacher', 'student2'),
        ):
            if first in labels and second in labels:
                agreement = pixel_agreement(labels[first], labels[second], known)
                scalars[f'agreement_{name}'] = agreement
        return scalars

    # ------------------------------------------------------------------ the start of the teacher
    def on_network_loaded(self, name: str) -> None:
        if name == 'teacher':
            self._teacher_loaded = True

    def start_teacher(self) -> None:
        """Load ``teacher_checkpoint`` into the teacher alone, unless a checkpoint brought a teacher.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a checkpoint of the plain network.
        """
        if self._teacher_loaded:
            return
        path = self.cfg.teacher_checkpoint
        if path is None:
            print_log(
                'The teacher of GPS starts untrained and learns at a rate meant for a trained one. Set '
                'semi_train_cfg.teacher_checkpoint, or train it in a stage before (docs/gps.md).',
                logger='current',
                level=logging.WARNING,
            )
            return
        if '://' not in path and not osp.isfile(path):
            raise FileNotFoundError(
                f'semi_train_cfg.teacher_checkpoint={path!r} does not exist. Give a checkpoint of the plain '
                'network, or let a stage train it (docs/gps.md).'
            )
        if path.startswith('stage://'):
            raise ValueError(
                f"semi_train_cfg.teacher_checkpoint={path!r} names a stage's result. Train with "
                "runner_type='StagedRunner', or give the path of a checkpoint."
            )
        checkpoint = read_checkpoint(path)
        self.load_network('teacher', checkpoint)
        trained = (checkpoint.get('meta') or {}).get('iter', 'an unknown number of')
        print_log(
            f"GPS's teacher starts from {path}, after {trained} iterations of a training of its own.",
            logger='current',
        )
        self._teacher_loaded = True
