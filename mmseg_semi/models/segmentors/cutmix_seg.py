"""CutMix-Seg: consistency on mixed images (BMVC 2020)."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor

from ...functional.mixing import paste
from ...functional.pseudo_label import confidence_and_label, confident_ratio, label_entropy
from ..gradients import without_gradients
from .base import check_choices, check_ranges
from .mean_teacher_consistency import MeanTeacher, Targets


@MODELS.register_module()
class CutMixSeg(MeanTeacher):
    """CutMix-Seg, "Semi-supervised semantic segmentation needs strong, varied perturbations".

    French et al., BMVC 2020. The teacher predicts two unlabelled images as they are; both images and both
    predictions are mixed by one mask, a box of half the area, and the student learns the mixed prediction
    of the mixed image by the squared distance of the probabilities, summed over the classes. The loss is
    multiplied by the share of its pixels on which the teacher is confident, in the place of a ramp-up.

    Readings, from the paper's code (Britefury/cutmix-semisup-seg). The share is one number for the batch of
    a process; ``confidence_weighting='pixel'`` leaves doubtful pixels out instead, an option there. The code
    draws two batches and mixes the one into the other; here the partner of an image is the next one of its
    batch, so that the teacher predicts each image once. The code freezes batch normalisation and has the
    teacher in train mode; here the student's is trained and the teacher is in eval mode.

    Costs: as Mean Teacher, 7 forwards of an image pair.

    Settings of ``semi_train_cfg``: those of :class:`MeanTeacher`, where ``student_view`` is 'weak', and

    - ``tau`` (float, 0.97): Confidence from which a pixel of the teacher counts; 0 weighs all by 1.
    - ``confidence_weighting`` ('batch' | 'pixel'): Weigh the batch by the share of confident pixels, or
      each pixel by 0 or 1.
    - ``cutmix`` (dict): The CutMix; ``style='cutmix_seg'``, the default, draws the paper's boxes.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    train_defaults = {
        **MeanTeacher.train_defaults,
        'student_view': 'weak',
        'tau': 0.97,
        'confidence_weighting': 'batch',
        'cutmix': {'adaptive': False, 'prob': 1.0, 'style': 'cutmix_seg'},
    }
    readings = {
        **MeanTeacher.readings,
        'confidence_weighting': 'share of confident pixels as a weight of the batch, or of each pixel',
        'cutmix': 'probability and box of CutMix',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        check_ranges(cfg, {'tau': (0, 1)})
        check_choices(cfg, {'confidence_weighting': ('batch', 'pixel')})
        self.cutmix = self.build_cutmix()
        if self.cutmix is None:
            raise ValueError(
                'semi_train_cfg.cutmix=None is not what CutMixSeg learns from: give a dict, or train the type '
                "'MeanTeacher', which mixes nothing."
            )

    @without_gradients()
    def make_targets(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Targets:
        """Predict the weak images, mix the student's view, and weigh its pixels."""
        cfg = self.semi_train_cfg
        logits, valid, real = self.teach(inputs['weak'], data_samples['weak'])
        size = tuple(valid.shape[-2:])
        confidence, label = confidence_and_label(logits, size, self.align_corners)
        view = inputs[cfg['student_view']]
        plan = self.cutmix.sample(confidence.new_zeros(len(view)), size)
        mixed, counted, sure = (
            paste(maps, maps[plan.partner], plan.boxes)
            for maps in (view, valid, (confidence >= cfg['tau']) & valid)
        )
        ratio = sure.sum() / counted.sum().clamp(min=1)
        weight = sure if cfg['confidence_weighting'] == 'pixel' else counted * ratio
        diagnostics = {
            # As all methods log it: of the images before they are mixed. The weight is the mixed batch's.
            'confident_ratio': confident_ratio(confidence, cfg['tau'], valid).mean(),
            'pseudo_label_entropy': label_entropy(label, self.num_classes, real),
            'cutmix_rate': plan.triggered.float().mean(),
        }
        return Targets(mixed, logits, weight, plan, diagnostics)
