"""GPS: a teacher guides two students and learns from them in turn (WACV 2024)."""

from __future__ import annotations

import logging
import os.path as osp
from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import pixel_agreement
from ...functional.losses import cross_entropy
from ...functional.pseudo_label import average_label
from ..checkpoints import read_checkpoint
from ..clock import Clock
from ..losses import is_plain_cross_entropy
from .base import NetworkOutput
from .independent import IndependentSegmentor, Views

UPDATES = ('alternating', 'merged')


@dataclass
class Exchange:
    """What the first update of an iteration leaves for the second one.

    Attributes:
        views (Views, optional): The unlabelled images with their boxes; None where none are learnt.
        teacher_logits (Tensor, optional): The teacher's of ``views.images``, with their graph, where it has
            seen the very images to label them.
        student_logits (list[list[Tensor]], optional): The students', by batch of ``views``, before the update.
        labeled_ce (Tensor, optional): Mean cross-entropy of the students on the labelled images.
    """

    views: Views | None = None
    teacher_logits: Tensor | None = None
    student_logits: list[list[Tensor]] | None = None
    labeled_ce: Tensor | None = None


@MODELS.register_module()
class GPS(IndependentSegmentor):
    """GPS, "Guided Pseudo Supervision", a teacher and two students that teach each other.

    Each iteration makes two updates. The students learn the labelled images, the teacher's labels of the
    unlabelled ones and each other's (Eq. 4-6); then the teacher learns the labelled images and what the
    *updated* students together say of the same unlabelled ones (Eq. 8, 10). The weight of the latter grows by
    a Gaussian ramp-up (Eq. 9) that jumps to 1 once the students do as well on the labelled images as the
    teacher; :class:`~mmseg_semi.engine.AdaptiveRampUpHook` keeps it. No network averages another. One student
    is the result. No code of the authors exists: where the paper is silent, a setting below holds our reading.

    The teacher is trained on the labelled images beforehand and then learns at a constant rate, that of the
    last step of a poly schedule (``FinalPolyLR``). No loss of the students reaches the teacher, nor one of
    the teacher the students.

    One step costs 20 forwards of an image pair without CutMix, where the teacher's forward on the unlabelled
    images serves both updates; 23 with an in-batch partner and 28 with pairs (a backward counts as two).

    Settings of ``semi_train_cfg``, besides those of
    :class:`~mmseg_semi.models.segmentors.independent.IndependentSegmentor`:

    - ``alpha`` (float, 0.5), ``beta`` (float, 1.5), ``gamma`` (float, 0.5): Factors of the teacher's guidance
      (Eq. 5), of the students' cross supervision (Eq. 6) and of their feedback to the teacher (Eq. 10); on
      Cityscapes 1, 5 and 1.
    - ``gps``, ``cps``, ``fps`` (bool, True): Guidance, cross supervision and feedback; False leaves the term
      out (Table 4).
    - ``update`` ('alternating' | 'merged'): The teacher learns from the students as they are after their
      update, or as they were before it, which makes the two updates one of the sum of both losses.
    - ``teacher_checkpoint`` (str | None): A checkpoint of the plain network that the teacher starts from,
      unless a resumed or loaded checkpoint of this method brings a teacher.
    - ``teacher_lr_scale`` (float, 1.0): Factor of the teacher's learning rate, which is some 1e-6 in the paper.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    networks = built_networks = ('student1', 'student2', 'teacher')
    optimized = {'students': ('student1', 'student2'), 'teacher': ('teacher',)}
    required_hooks = ('AdaptiveRampUpHook',)
    train_defaults = {
        **IndependentSegmentor.train_defaults,
        'alpha': 0.5,
        'beta': 1.5,
        'gamma': 0.5,
        'gps': True,
        'cps': True,
        'fps': True,
        'update': 'alternating',
        'teacher_checkpoint': None,
        'teacher_lr_scale': 1.0,
    }
    readings = {
        **IndependentSegmentor.readings,
        'update': 'when the teacher learns from the students (Eq. 10)',
        'teacher_checkpoint': 'start of the teacher',
        'teacher_lr_scale': "factor of the teacher's learning rate",
    }

    #: w(e) of Eq. 9 in the running epoch.
    ramp_up_weight = 1.0

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        if self.semi_train_cfg['update'] not in UPDATES:
            raise ValueError(
                f"semi_train_cfg.update='{self.semi_train_cfg['update']}' is unknown: choose one of {UPDATES}."
            )
        # Of the running epoch, over all ranks: sums of the labelled cross-entropy of students (their mean) and
        # teacher, and the batches that have labels.
        self.register_buffer('labeled_sums', torch.zeros(3, dtype=torch.float64))
        # The epoch that ended the ramp-up; 0 while it lasts.
        self.register_buffer('latch_epoch', torch.zeros((), dtype=torch.int64))
        self._teacher_loaded = False
        # Micro-batches of the running step that the teacher has yet to learn.
        self._held: list[tuple[dict, Exchange]] = []

    def lr_scale(self, wrapper: str) -> float:
        return self.semi_train_cfg['teacher_lr_scale'] if wrapper == 'teacher' else 1.0

    # ------------------------------------------------------------------ the two updates
    def train_step(
        self, data: dict, optim_wrapper: OptimWrapperDict, call=None
    ) -> dict[str, Tensor]:
        """Update the students, then the teacher on the same images.

        With gradient accumulation the micro-batches of a step are held, images and labels without graphs, until
        the students have stepped: the teacher then learns from the updated students on all of them. With
        ``update='merged'`` the labels are made beforehand, and each micro-batch serves both at once.

        Raises:
            ValueError: There are not two optimizer wrappers.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise ValueError(
                'GPS updates its students and its teacher apart and got one optimizer: set '
                "optim_wrapper.constructor='NetworkOptimWrapperConstructor'."
            )
        self.clock = Clock.of(optim_wrapper)
        students, teacher = (optim_wrapper[name] for name in self.optimized)
        if self.clock.begins_step:
            self._held.clear()
        data, exchange = self.data_preprocessor(data, True), Exchange()
        log_vars = self._make_update('students', students, call, data, exchange)
        self._held.append((data, exchange))
        if not students.should_update() and self.semi_train_cfg['update'] == 'alternating':
            return log_vars
        held, self._held = self._held, []
        terms = [self._make_update('teacher', teacher, call, *one) for one in held]
        means = {key: sum(one[key] for one in terms) / len(terms) for key in terms[0]}
        return {**log_vars, **means, 'loss': log_vars['loss'] + means['loss']}

    def _make_update(self, name, wrapper, call, data: dict, exchange: Exchange) -> dict:
        """One micro-batch of one update; returns its scalars for the log."""
        update = self if call is None else call.of_update(name)
        with wrapper.optim_context(update):
            losses = update(**data, mode=name, exchange=exchange)
        parsed, log_vars = self.parse_losses(losses)
        wrapper.update_params(parsed)
        return log_vars

    def forward(self, inputs, data_samples=None, mode: str = 'tensor', exchange=None):
        """As MMSegmentation's; the modes ``students`` and ``teacher`` are the losses of the two updates."""
        if mode == 'students':
            return self.students_loss(inputs, data_samples, exchange)
        if mode == 'teacher':
            return self.teacher_loss(inputs, data_samples, exchange)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """The losses of both updates, with no update between them."""
        exchange = Exchange()
        return {
            **self.students_loss(inputs, data_samples, exchange),
            **self.teacher_loss(inputs, data_samples, exchange),
        }

    def students_loss(
        self, inputs: dict[str, Tensor], data_samples: dict[str, list], exchange: Exchange
    ) -> dict[str, Tensor]:
        """L_guide (Eq. 4-6), each term summed over the two students."""
        self.check_branches(inputs)
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        students = [getattr(self, name) for name in self.students]
        losses, entropies = {}, []
        for name, student in zip(self.students, students, strict=True):
            output = self.forward_network(student, labeled, len(labeled))
            own = self.network_loss(name, output, data_samples['labeled'])
            losses.update(own)
            entropies.append(self.labeled_ce(name, output, data_samples['labeled'], own))
        exchange.labeled_ce = sum(entropies) / len(entropies)
        if not self.started or not (cfg['gps'] or cfg['cps'] or cfg['fps']):
            return losses

        views = exchange.views = self.make_views(inputs['weak'], data_samples['weak'])
        mixes = views.boxes is not None
        merged = cfg['fps'] and cfg['update'] == 'merged'
        labels, logits, before = {}, [], None
        if not mixes and cfg['fps'] and self.clock.accumulation == 1:
            # It learns the very images that it labels: one forward serves both. Held micro-batches would hold
            # its graph.
            exchange.teacher_logits = self.forward_network(self.teacher, views.images).logits
        if cfg['gps']:
            known = exchange.teacher_logits
            known = self.predict_batches(self.teacher, views) if known is None else [known.detach()]
            labels['teacher'] = self.hard_label(known, views)
        if cfg['gps'] or cfg['cps']:
            logits = [self.forward_network(student, views.images).logits for student in students]
        if logits and not mixes:
            before = [[one.detach()] for one in logits]
        elif cfg['cps'] or merged:
            before = [self.predict_batches(student, views) for student in students]
        if merged:
            exchange.student_logits = before
        if cfg['cps']:
            for name, known in zip(self.students, before, strict=True):
                labels[name] = self.hard_label(known, views)

        if cfg['gps']:
            term = sum(self.pseudo_loss(one, labels['teacher']) for one in logits)
            losses['loss_gps'] = cfg['alpha'] * term
        if cfg['cps']:
            first, second = self.students
            term = self.pseudo_loss(logits[0], labels[second])
            term = term + self.pseudo_loss(logits[1], labels[first])
            losses['loss_cps'] = cfg['beta'] * term
        if 'teacher' in labels:
            entropy = views.label_entropy(labels['teacher'], self.num_classes)
            losses['pseudo_label_entropy'] = entropy
        return {**losses, **self.agreement(labels)}

    def teacher_loss(
        self, inputs: dict[str, Tensor], data_samples: dict[str, list], exchange: Exchange
    ) -> dict[str, Tensor]:
        """L_fb (Eq. 10), with the labels of the students as they are now (Eq. 8)."""
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        output = self.forward_network(self.teacher, labeled, len(labeled))
        losses = self.network_loss('teacher', output, data_samples['labeled'])
        own = self.labeled_ce('teacher', output, data_samples['labeled'], losses)
        if self.started:
            self.observe(exchange.labeled_ce, own, data_samples['labeled'])
        losses.update(labeled_ce_students=exchange.labeled_ce, labeled_ce_teacher=own)
        views = exchange.views
        if views is None or not cfg['fps']:
            return losses
        known = exchange.student_logits
        if known is None:
            known = [self.predict_batches(getattr(self, name), views) for name in self.students]
        size = tuple(views.images.shape[-2:])
        label = views.mixed(
            [average_label(both, size, self.align_corners) for both in zip(*known, strict=True)]
        )
        logits = exchange.teacher_logits
        if logits is None:
            logits = self.forward_network(self.teacher, views.images).logits
        weight = self.ramp_up_weight * cfg['gamma']
        losses['loss_fps'] = weight * self.pseudo_loss(logits, label)
        return losses

    # ------------------------------------------------------------------ diagnostics and the ramp-up
    def agreement(self, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Share of pixels on which two pseudo-labels agree, for each pair that is known."""
        known = next(iter(labels.values())) != 255 if labels else None
        shares = {}
        for name, first, second in (
            ('students', *self.students),
            ('teacher_student1', 'teacher', 'student1'),
            ('teacher_student2', 'teacher', 'student2'),
        ):
            if first in labels and second in labels:
                shares[f'agreement_{name}'] = pixel_agreement(labels[first], labels[second], known)
        return shares

    @torch.no_grad()
    def labeled_ce(
        self, name: str, output: NetworkOutput, data_samples: list, losses: dict[str, Tensor]
    ) -> Tensor:
        """Plain cross-entropy of labelled images, whatever loss their head has; a scalar for the ramp-up.

        Args:
            name (str): Of the network.
            output (NetworkOutput): Of the network, of these images.
            data_samples (list[SegDataSample]): Their labels.
            losses (dict[str, Tensor]): What :meth:`network_loss` made of them, in which it may be already.
        """
        head = getattr(self, name).decode_head
        if is_plain_cross_entropy(head):
            return losses[f'{name}.decode.{head.loss_decode.loss_name}'].detach()
        label = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
        index = head.ignore_index
        return cross_entropy(
            output.logits, label, ignore_index=index, align_corners=self.align_corners
        )

    @torch.no_grad()
    def observe(self, students: Tensor, teacher: Tensor, data_samples: list) -> None:
        """Add a labelled batch to the epoch's means, on all ranks alike; one that is all void is left out."""
        label = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
        values = torch.stack([students, teacher, torch.ones_like(teacher)]).to(self.labeled_sums)
        counts = (label != self.decode_head.ignore_index).any() & values.isfinite().all()
        values = torch.where(counts, values, torch.zeros_like(values))
        # Each time, and not at the end of the epoch: a checkpoint holds the sums of all ranks.
        all_reduce(values)
        self.labeled_sums += values

    def begin_ramp_up(self) -> None:
        """Forget the ramp-up of the training that loaded weights come from."""
        self.labeled_sums.zero_()
        self.latch_epoch.zero_()

    def end_epoch(self, epoch: int, adaptive: bool = True) -> tuple[float, float] | None:
        """End the ramp-up if the students have caught up with the teacher (Eq. 9), and begin new means.

        Epoch-averaged losses are compared, as a single batch would decide by chance; ``epoch`` counts from 1.
        The mean of both students takes part, half of the paper's sum. ``adaptive=False`` compares nothing.

        Returns:
            tuple[float, float], optional: Means of students and teacher; None without a labelled pixel.
        """
        students, teacher, number = self.labeled_sums.tolist()
        self.labeled_sums.zero_()
        if not number:
            return None
        if adaptive and not self.latch_epoch and students <= teacher:
            self.latch_epoch.fill_(epoch)
        return students / number, teacher / number

    # ------------------------------------------------------------------ the teacher's start
    def on_network_loaded(self, name: str) -> None:
        if name == 'teacher':
            self._teacher_loaded = True

    def start_teacher(self) -> None:
        """Load ``teacher_checkpoint`` into the teacher alone, unless a checkpoint brought a teacher.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no checkpoint of the plain network.
        """
        path = self.semi_train_cfg['teacher_checkpoint']
        if self._teacher_loaded:
            return
        if path is None:
            print_log(
                "GPS's teacher begins untrained and learns at a rate meant for one that is trained: set "
                'semi_train_cfg.teacher_checkpoint, or train it in a stage before (docs/gps.md).',
                logger='current',
                level=logging.WARNING,
            )
            return
        if '://' not in path and not osp.isfile(path):
            raise FileNotFoundError(
                f'semi_train_cfg.teacher_checkpoint={path!r} does not exist: give a checkpoint of the plain '
                'network, or let a stage train it (docs/gps.md).'
            )
        if path.startswith('stage://'):
            raise ValueError(
                f"semi_train_cfg.teacher_checkpoint={path!r} names a stage's result: train with "
                "runner_type='StagedRunner', or give the path of a checkpoint."
            )
        checkpoint = read_checkpoint(path)
        weights = checkpoint['state_dict']
        self._check_checkpoint('teacher', weights)
        self.teacher.load_state_dict(weights, strict=False)
        trained = (checkpoint.get('meta') or {}).get('iter', 'an unknown number of')
        print_log(
            f"GPS's teacher starts from {path}, after {trained} iterations of a training of its own.",
            logger='current',
        )
        self._teacher_loaded = True
