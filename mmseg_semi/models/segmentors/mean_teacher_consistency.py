"""Mean Teacher: consistency with an averaged network (NeurIPS 2017), for segmentation."""

from __future__ import annotations

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from ...functional.losses import squared_error
from ...functional.pseudo_label import label_entropy
from ...functional.resizing import resize_nearest
from ...functional.schedules import sigmoid_ramp_up
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..gradients import without_gradients
from ..settings import setting
from .mean_teacher import MeanTeacherSegmentor
from .networks import check_forwards


@MODELS.register_module()
class MeanTeacher(MeanTeacherSegmentor):
    """Mean Teacher, "Mean teachers are better role models" (Tarvainen and Valpola, NeurIPS 2017).

    On unlabeled images the loss is the squared distance between the probabilities of the student and of the EMA
    teacher at each pixel (Sec. 2). Its weight ramps up (appendix B).

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacherSegmentor.Settings):
        consistency_weight: float = setting(
            1.0,
            'Weight of the consistency loss after the ramp-up.',
            low=0,
            source='PixelSSL, CutMix-Seg code',
        )
        rampup_steps: int = setting(
            0,
            'Optimizer steps of the ramp-up exp(-5 (1 - t)^2); 0 disables it.',
            low=0,
            source='appendix B',
            reading='optimizer steps over which the weight grows',
        )
        rampup_epochs: int = setting(
            0,
            'Same as rampup_steps, in epochs over the unlabeled images.',
            low=0,
            source="PixelSSL's code: 3",
        )
        class_mean: bool = setting(
            False,
            'Average over the classes instead of summing.',
            source='Sec. 2; code: True',
            reading='mean over the classes instead of the sum',
        )
        student_view: Literal['strong', 'weak'] = setting(
            'strong',
            "Input branch of the student. With 'weak', the networks differ only by dropout and the average.",
            reading='input branch of the student',
        )
        joint_forward: bool = setting(
            True,
            'Run the student on labeled and unlabeled images in one forward pass. False: in two.',
            reading='batch normalization over labeled and unlabeled images together',
        )

        def check(self) -> None:
            super().check()
            self.refuse_several('rampup_steps', 'rampup_epochs')

    cfg: Settings

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, self.cfg.joint_forward)
        self.unlabeled_branches = tuple(dict.fromkeys(('weak', self.cfg.student_view)))

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labeled loss and the weighted consistency (Sec. 2)."""
        with without_gradients():
            teacher = self.forward_network(self.teacher, batch.weak.images).logits
            mix, pixel_weight, log = self.weigh(teacher, batch)
        view = mix(getattr(batch, self.cfg.student_view).images)
        output, (logits,) = self.forward_views(
            self.student, batch.labeled.images, view, joint=self.cfg.joint_forward
        )
        distance = squared_error(
            logits,
            teacher,
            batch.size,
            partner=mix.partner,
            boxes=mix.boxes,
            pixel_weight=pixel_weight,
            class_mean=self.cfg.class_mean,
            align_corners=self.align_corners,
        )
        return {
            **self.labeled_loss(output, batch),
            'loss_consistency': self.weight_now() * distance.mean(),
            **log,
        }

    def weight_now(self) -> float:
        """Return the weight of the consistency in this step."""
        length = self.steps_of(self.cfg.rampup_steps, self.cfg.rampup_epochs)
        since = self.clock.step - self.unlabeled_start
        return self.cfg.consistency_weight * sigmoid_ramp_up(since, length)

    def weigh(self, logits: Tensor, batch: Batch) -> tuple[CutMixPlan, Tensor, dict[str, Tensor]]:
        """Return the CutMix plan and the pixel weights of the student's view.

        Args:
            logits (Tensor): Small logits (N, C, h, w) of the teacher for the weak views.
            batch (Batch): Batch of the iteration.

        Returns:
            tuple: The plan; weights (N, H, W), bool or float; scalars for the log.
        """
        # At the resolution of the logits, which is enough for a histogram. The loss needs no labels.
        real = resize_nearest(batch.weak.real, logits.shape[-2:], self.align_corners)
        entropy = label_entropy(logits.argmax(dim=1), self.num_classes, real)
        return CutMixPlan(), batch.weak.valid, {'pseudo_label_entropy': entropy}
