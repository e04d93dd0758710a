"""CutMix-Seg: consistency on mixed images (BMVC 2020)."""

from __future__ import annotations

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from ..batch import Batch
from ..cutmix import CutMixPlan
from ..settings import setting
from .mean_teacher_consistency import MeanTeacher


@MODELS.register_module()
class CutMixSeg(MeanTeacher):
    """CutMix-Seg, "Semi-supervised semantic segmentation needs strong, varied perturbations".

    French et al., BMVC 2020. The teacher predicts two unlabeled images as they are; both images and both
    predictions are mixed by one mask, a box of half the area, and the student learns the mixed prediction of
    the mixed image by the squared distance of the probabilities, summed over the classes. The loss is
    multiplied by the share of its pixels on which the teacher is confident, in place of a ramp-up.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacher.Settings):
        student_view = 'weak'
        tau: float = setting(
            0.97,
            'Confidence from which a pixel of the teacher counts; 0 weighs all by 1.',
            low=0,
            high=1,
        )
        confidence_weighting: Literal['batch', 'pixel'] = setting(
            'batch',
            'Weigh the batch by the share of confident pixels, or each pixel by 0 or 1.',
            source='code: batch',
            reading='share of confident pixels as a weight of the batch, or of each pixel',
        )
        cutmix: dict = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 1.0, 'style': 'cutmix_seg'},
            'CutMix of the unlabeled images.',
            source='code',
            reading='probability and box of CutMix',
            hint="To mix nothing, train the type 'MeanTeacher'.",
        )

    cfg: Settings

    def weigh(self, logits: Tensor, batch: Batch) -> tuple[CutMixPlan, Tensor, dict[str, Tensor]]:
        cfg, valid = self.cfg, batch.weak.valid
        confidence, label = self.most_probable(logits, batch.size)
        mix = self.cutmix.plan(len(label), batch.size, label.device)
        counted, sure = mix(valid, (confidence >= cfg.tau) & valid)
        ratio = sure.sum() / counted.sum().clamp(min=1)
        weight = sure if cfg.confidence_weighting == 'pixel' else counted * ratio
        # As all methods log it: of the images before they are mixed. The weight is the mixed batch's.
        return mix, weight, {**self.label_log(label, batch.weak, confidence), **mix.log}
