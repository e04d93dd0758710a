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

    Each iteration makes two updates. First, the students are trained on the labeled images and on unlabeled
    images with the pseudo-labels of the teacher and of each other (Eq. 4-6). Then the teacher is trained on the
    labeled images and on the same unlabeled images with the joint pseudo-labels of the *updated* students
    (Eq. 8, 10). The weight of the teacher's unlabeled loss grows until the students perform as well on the
    labeled images as the teacher (Eq. 9), see :class:`~mmseg_semi.engine.AdaptiveRampUpHook`. No network is an
    average of another. No gradient passes between the teacher and the students. One student is the result.

    The teacher is pre-trained on the labeled images and then has a constant learning rate, see
    :class:`~mmseg_semi.engine.FinalPolyLR`. docs/gps.md lists our readings where the paper leaves details open.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(IndependentSegmentor.Settings):
        alpha: float = setting(
            0.5, "Weight of the teacher's guidance; 1 on Cityscapes.", low=0, source='Eq. 5'
        )
        beta: float = setting(
            1.5, 'Weight of the cross supervision; 5 on Cityscapes.', low=0, source='Eq. 6'
        )
        gamma: float = setting(
            0.5,
            "Weight of the students' feedback to the teacher; 1 on Cityscapes.",
            low=0,
            source='Eq. 10',
        )
        guidance: Literal['constant', 'ramp_down'] = setting(
            'constant',
            'The guidance keeps its full weight, or has the factor exp(-((e - 1) / E)^2) in epoch e of E: the '
            'ramp-up of Eq. 9 in reverse, without its comparison.',
            source='ablation of the ramp-down',
            reading='the formula of the ramp-down',
        )
        gps: bool = setting(True, 'Use the guidance term.', source='Eq. 5, Table 4')
        cps: bool = setting(True, 'Use the cross supervision term.', source='Eq. 6, Table 4')
        fps: bool = setting(True, 'Use the feedback term.', source='Eq. 10, Table 4')
        update: Literal['alternating', 'merged'] = setting(
            'alternating',
            "'alternating': the teacher is trained on pseudo-labels of the students after their update. "
            "'merged': before their update, which equals one update with the sum of both losses.",
            reading='when the teacher learns from the students (Eq. 10)',
        )
        teacher_checkpoint: str | None = setting(
            None,
            'Checkpoint of a plain network for the initial weights of the teacher. Ignored if a resumed or '
            'loaded checkpoint of this method contains a teacher.',
            source='Eq. 2',
            reading='initial weights of the teacher',
        )
        teacher_lr_scale: float = setting(
            1.0,
            "Factor of the teacher's learning rate. The paper's learning rate is about 1e-6.",
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

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        cfg, fewest = self.cfg, super().images_of_a_forward(labeled, unlabeled)
        every = cfg.fps and (cfg.gps or cfg.cps)
        # A network without an unlabeled loss sees the labeled images alone.
        return fewest if every else min(fewest, labeled)

    # ------------------------------------------------------------------ the two updates
    def students_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_guide (Eq. 4-6), with each term summed over the two students."""
        cfg, weak, left = self.cfg, batch.weak.images, batch.left
        joint = cfg.joint_forward and (cfg.gps or cfg.cps)
        losses = {} if joint else self.labeled_only_loss(batch, 'students')
        if not (cfg.gps or cfg.cps or cfg.fps):
            return losses
        mix = left['mix'] = self.cutmix.plan(len(weak), batch.size, weak.device)
        images = left['images'] = mix(weak)
        students = [self.student1, self.student2]
        merged = cfg.fps and cfg.update == 'merged'
        labels, logits = {}, []
        shared = cfg.cutmix is None and not cfg.joint_forward
        if shared and cfg.fps and self.clock.accumulation == 1:
            # The teacher is trained on the images that it labels, so both updates can share one forward pass.
            # With gradient accumulation the held batches would keep its graph in memory.
            left['teacher_logits'] = self.forward_network(self.teacher, images).logits
        if cfg.gps:
            known = left.get('teacher_logits')
            known = self.label_weak(self.teacher, batch) if known is None else known.detach()
            labels['teacher'] = self.hard_label(known, batch, mix)
        if joint:
            losses, logits = self.joint_loss(batch, 'students', images)
        elif cfg.gps or cfg.cps:
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
        """Return L_fb (Eq. 10), with the pseudo-labels of the current students (Eq. 8)."""
        cfg, left = self.cfg, batch.left
        joint = cfg.joint_forward and cfg.fps
        if joint:
            losses, (logits,) = self.joint_loss(batch, 'teacher', left['images'])
        else:
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
        if not joint:
            logits = left.get('teacher_logits')
            if logits is None:
                logits = self.forward_network(self.teacher, left['images']).logits
        losses['loss_fps'] = self.ramp_up.weight * cfg.gamma * self.pseudo_loss(logits, label)
        return losses

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """Return the labeled losses of an update. The teacher's update adds the losses that Eq. 9 compares."""
        return self.joint_loss(batch, update)[0]

    def joint_loss(
        self, batch: Batch, update: str, *images: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Same as :meth:`labeled_only_loss`, with the small logits of mixed images of the same forward pass."""
        outputs, losses, logits = self.learn_labeled(batch, self.optimized[update], *images)
        entropy = self.labeled_ce(outputs, losses, batch)
        if update == 'students':
            batch.left['labeled_ce'] = entropy
            return losses, logits
        compared = {'labeled_ce_students': batch.left['labeled_ce'], 'labeled_ce_teacher': entropy}
        return {**losses, **compared}, logits

    @torch.no_grad()
    def labeled_ce(
        self, outputs: dict[str, NetworkOutput], losses: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        """Return the plain cross-entropy on labeled images, averaged over the networks.

        It does not depend on the losses of the heads.

        Args:
            outputs (dict[str, NetworkOutput]): Outputs by network.
            losses (dict[str, Tensor]): Result of :meth:`learn_labeled`, which may contain the cross-entropy.
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
        """Return the entropy of pseudo-labels (N, H, W) by network and the agreement of each pair."""
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
        """Load ``teacher_checkpoint`` into the teacher, unless a loaded checkpoint contains a teacher.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not a checkpoint of the plain network.
        """
        if self._teacher_loaded:
            return
        path = self.cfg.teacher_checkpoint
        if path is None:
            print_log(
                'The teacher of GPS is not trained, but its learning rate is meant for a trained one '
                '(semi_train_cfg.teacher_checkpoint=None). Set semi_train_cfg.teacher_checkpoint, or train the '
                'teacher in an earlier stage (docs/gps.md).',
                logger='current',
                level=logging.WARNING,
            )
            return
        if '://' not in path and not osp.isfile(path):
            raise FileNotFoundError(
                f'semi_train_cfg.teacher_checkpoint={path!r} does not exist. Give a checkpoint of the plain '
                'network, or train the teacher in an earlier stage (docs/gps.md).'
            )
        if path.startswith('stage://'):
            raise ValueError(
                f'semi_train_cfg.teacher_checkpoint={path!r} refers to the result of a stage. Train with '
                "runner_type='StagedRunner', or give the path of a checkpoint."
            )
        checkpoint = read_checkpoint(path)
        self.load_network('teacher', checkpoint)
        trained = (checkpoint.get('meta') or {}).get('iter', 'an unknown number of')
        print_log(
            f'The teacher of GPS starts from {path}, which was trained for {trained} iterations.',
            logger='current',
        )
        self._teacher_loaded = True
