"""Mean Teacher: consistency with an averaged network (NeurIPS 2017), for segmentation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.losses import squared_error
from ...functional.parts import resize_nearest
from ...functional.pseudo_label import label_entropy
from ...functional.schedules import sigmoid_ramp_up
from ..gradients import without_gradients
from ..mixers import CutMixPlan
from .base import check_choices, check_forwards, check_ranges
from .mean_teacher import MeanTeacherSegmentor


class Targets(NamedTuple):
    """What the student sees of an unlabelled batch and what the teacher says of it.

    Attributes:
        view (Tensor): Images (N, 3, H, W) for the student.
        teacher_logits (Tensor): (N, C, h, w) of the weak images, unmixed.
        pixel_weight (Tensor): (N, H, W) of the view, bool or a number; 0 is left out.
        plan (CutMixPlan, optional): What was pasted where into the view.
        diagnostics (dict[str, Tensor]): Scalars for the log.
    """

    view: Tensor
    teacher_logits: Tensor
    pixel_weight: Tensor
    plan: CutMixPlan | None
    diagnostics: dict[str, Tensor]


@MODELS.register_module()
class MeanTeacher(MeanTeacherSegmentor):
    """Mean Teacher, "Mean teachers are better role models" (Tarvainen and Valpola, NeurIPS 2017).

    On unlabelled images the student's probabilities are drawn to those of the EMA teacher, by their
    squared distance at each pixel (Sec. 2), with a weight that ramps up (appendix B). Used for
    segmentation by French et al. (BMVC 2020) and Ke et al. (ECCV 2020, GCT).

    Readings. The paper's cost is a squared norm, so the sum over the classes, and its code
    (CuriousAI/mean-teacher) divides by their number: ``class_mean``. It applies the cost to labelled images
    too; here it is the unlabelled images alone, as in the segmentation settings of ZHKKKe/PixelSSL (which
    compares logits, not probabilities). Teacher and student get noise of their own in the paper, whose code
    has both in train mode: here the teacher sees the weak view in eval mode and the student ``student_view``.

    One step costs a forward of the teacher and a joint forward and backward of the student on labelled and
    unlabelled images: 7 forwards of an image pair. Memory: a second set of weights, and nothing of full
    resolution for the whole batch.

    Settings of ``semi_train_cfg``:

    - ``consistency_weight`` (float, 1.0): Factor of the consistency in the end.
    - ``rampup_steps`` (int, 0): Optimizer steps over which it grows as exp(-5 (1 - t)^2); 0: at once.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before all of that.
    - ``class_mean`` (bool, False): Mean instead of sum over the classes.
    - ``student_view`` ('strong' | 'weak'): The branch that the student sees; with 'weak', dropout and the
      average alone make the two networks differ.
    - ``ignore_padding`` (bool, True): Padding adds nothing; the divisor stays the image's area.
    - ``joint_forward`` (bool, True): One forward of the student for labelled and unlabelled images, so that
      batch normalisation sees all; False: one each.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    train_defaults = {
        'consistency_weight': 1.0,
        'rampup_steps': 0,
        'unlabeled_start': 0,
        'class_mean': False,
        'student_view': 'strong',
        'ignore_padding': True,
        'joint_forward': True,
    }
    readings = {
        'class_mean': 'mean over the classes in the place of the sum',
        'student_view': 'what the student sees',
        'rampup_steps': 'optimizer steps over which the weight grows',
        'joint_forward': 'batch normalisation over labelled and unlabelled images together',
        'ignore_padding': 'padding not learnt from',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        ranges = ('consistency_weight', 'rampup_steps', 'unlabeled_start')
        check_ranges(cfg, dict.fromkeys(ranges, (0, None)))
        check_choices(cfg, {'student_view': ('strong', 'weak')})
        check_forwards(segmentor, cfg['joint_forward'])
        self.unlabeled_branches = tuple(dict.fromkeys(('weak', cfg['student_view'])))

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        if self.clock.step < cfg['unlabeled_start']:
            output, _ = self.forward_views(self.student, labeled)
            return self.labeled_loss(self.student, output, data_samples['labeled'])
        targets = self.make_targets(inputs, data_samples)
        output, (logits,) = self.forward_views(
            self.student, labeled, targets.view, joint=cfg['joint_forward']
        )
        return {
            **self.labeled_loss(self.student, output, data_samples['labeled']),
            'loss_consistency': self.weight_now() * self.distance(logits, targets).mean(),
            **targets.diagnostics,
        }

    def weight_now(self) -> float:
        """The consistency's factor in this step."""
        cfg = self.semi_train_cfg
        since = self.clock.step - cfg['unlabeled_start']
        return cfg['consistency_weight'] * sigmoid_ramp_up(since, cfg['rampup_steps'])

    def distance(self, logits: Tensor, targets: Targets) -> Tensor:
        """Squared distance of the probabilities of each image (N,), weighted by pixel."""
        return squared_error(
            logits,
            targets.teacher_logits,
            tuple(targets.view.shape[-2:]),
            partner=targets.plan and targets.plan.partner,
            boxes=targets.plan and targets.plan.boxes,
            pixel_weight=targets.pixel_weight,
            class_mean=self.semi_train_cfg['class_mean'],
            align_corners=self.align_corners,
        )

    @without_gradients()
    def make_targets(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Targets:
        """What the teacher says of the weak images, which the student sees as ``student_view``."""
        logits, valid, real = self.teach(inputs['weak'], data_samples['weak'])
        # On the logits' grid: the loss needs no label, and a histogram no full resolution.
        grid = resize_nearest(real, logits.shape[-2:], self.align_corners)
        entropy = label_entropy(logits.argmax(dim=1), self.num_classes, grid)
        diagnostics = {'pseudo_label_entropy': entropy}
        view = inputs[self.semi_train_cfg['student_view']]
        return Targets(view, logits, valid, None, diagnostics)

    @without_gradients()
    def teach(self, weak: Tensor, samples: list) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the weak images with the teacher.

        Returns:
            tuple: Small logits (N, C, h, w), and bool (N, H, W) what is learnt from and what is no padding.
        """
        logits = self.forward_network(self.teacher, weak).logits
        real = torch.cat([sample.valid_mask.data for sample in samples]).bool()
        valid = real if self.semi_train_cfg['ignore_padding'] else torch.ones_like(real)
        return logits, valid, real
