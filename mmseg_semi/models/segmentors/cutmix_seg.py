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

    French et al., BMVC 2020. The teacher predicts two unmixed unlabeled images. One mask, a box of half the
    image area, mixes both the images and the predictions. The loss is the squared distance between the
    student's probabilities for the mixed image and the mixed prediction, summed over the classes. Instead of a
    ramp-up, the loss is multiplied by the fraction of pixels for which the teacher is confident.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacher.Settings):
        student_view = 'weak'
        tau: float = setting(
            0.97,
            'Confidence threshold of the teacher. With 0, all pixels have weight 1.',
            low=0,
            high=1,
        )
        confidence_weighting: Literal['batch', 'pixel'] = setting(
            'batch',
            'Weight the batch by its fraction of confident pixels, or each pixel by 0 or 1.',
            source='code: batch',
            reading='fraction of confident pixels as a weight of the batch, or 0 or 1 per pixel',
        )
        cutmix: dict = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 1.0, 'style': 'cutmix_seg'},
            'CutMix of the unlabeled images.',
            source='code',
            reading='probability and box of CutMix',
            hint="To train without CutMix, set model.type='MeanTeacher'.",
        )

    cfg: Settings

    def weigh(self, logits: Tensor, batch: Batch) -> tuple[CutMixPlan, Tensor, dict[str, Tensor]]:
        cfg, valid = self.cfg, batch.weak.valid
        confidence, label = self.most_probable(logits, batch.size)
        mix = self.cutmix.plan(len(label), batch.size, label.device)
        counted, sure = mix(valid, (confidence >= cfg.tau) & valid)
        ratio = sure.sum() / counted.sum().clamp(min=1)
        weight = sure if cfg.confidence_weighting == 'pixel' else counted * ratio
        # Logged for the unmixed images, as in all methods. The weight is that of the mixed batch.
        return mix, weight, {**self.label_log(label, batch.weak, confidence), **mix.log}
