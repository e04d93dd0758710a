"""PrevMatch: UniMatch with additional pseudo-labels of earlier models of the same training (WACV 2026)."""

from __future__ import annotations

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from ...functional.pseudo_label import confident_ratio
from ...functional.schedules import triangle
from ..batch import Batch
from ..earlier_models import EarlierModels, saved_models
from ..matching import check_weights
from ..settings import setting
from .networks import evaluating
from .unimatch import UniMatch


@MODELS.register_module()
class PrevMatch(UniMatch):
    """PrevMatch, "Revisiting and Maximizing Temporal Knowledge in Semi-Supervised Semantic Segmentation".

    All views of UniMatch are trained on its pseudo-labels and on those of an ensemble of earlier models, the
    guidance,

        L = 2 / (2 + w) * (1/2 L_x + 1/2 L_u + w/2 L_g),

    where L_g is UniMatch's L_u with the labels and the threshold of the guidance. Each iteration samples 1 to K
    earlier models and sums their logits with random weights. w rises linearly until the middle of the training
    and then falls to 0. Without an earlier model it is 0.
    :class:`~mmseg_semi.engine.EarlierModelHook` decides when the student becomes an earlier model.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(UniMatch.Settings):
        num_models: int = setting(
            8,
            'Number of earlier models to keep. A further one replaces the oldest.',
            low=1,
            source='PrevMatch code, list_max_len',
        )
        max_drawn: int = setting(
            3,
            'K, the largest number of earlier models in the ensemble.',
            low=1,
            source='PrevMatch code, model_num',
        )
        random_number: bool = setting(
            True,
            'Sample the size of the ensemble uniformly from 1 to K. False: always K.',
            source='PrevMatch code, random_select',
        )
        guidance_tau: float = setting(
            0.9,
            'Confidence threshold of the pseudo-labels of the ensemble.',
            low=0,
            high=1,
            source='PrevMatch code, configs/pascal.yaml',
        )
        guidance_weight: float = setting(
            1.0,
            'Maximum of w, in the middle of the training.',
            low=0,
            source='PrevMatch code',
            reading='maximum of w, which rises from 0 and falls to 0 step by step',
        )
        place: Literal['host', 'device'] = setting(
            'host',
            "Memory for the earlier models: 'host' or 'device'.",
            source='PrevMatch code: device',
        )

    cfg: Settings
    required_hooks = ('EarlierModelHook',)

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.earlier = EarlierModels(self.cfg.num_models, self.cfg.place)

    def keep_student(self) -> None:
        """Store the current student as the newest earlier model."""
        self.earlier.keep(self.student)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L, or the loss of UniMatch as long as there is no earlier model."""
        # Before the student's forward passes, whose activations fill the memory.
        guidance = self.make_guidance(batch) if self.earlier.models else None
        passes = self.forward_batch(batch)
        losses = self.losses_of(passes, batch)
        if guidance is None:
            return losses
        label, confidence, log = guidance
        weight = self.weight_now
        guided = self.unlabeled_losses(passes, label, confidence, self.cfg.guidance_tau)
        losses.update(
            {key.replace('loss', 'loss_guided'): weight * loss for key, loss in guided.items()}
        )
        share = 2 / (2 + weight)
        losses = {key: share * one if 'loss' in key else one for key, one in losses.items()}
        return {**losses, **log}

    def make_guidance(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Label the weak views with a random ensemble of earlier models.

        Returns:
            tuple: int64 labels (N, H, W), 255 where a pixel is ignored; float32 confidences (N, H, W); scalars
            for the log.
        """
        cfg, weak = self.cfg, batch.weak
        drawn = self.earlier.draw(cfg.max_drawn, cfg.random_number)
        with evaluating(self.student):
            logits = self.earlier.logits(self.student, weak.images, drawn)
        confidence, label = self.most_probable(logits, batch.size)
        ratio = confident_ratio(confidence, cfg.guidance_tau, weak.valid).mean()
        return label.masked_fill(~weak.valid, 255), confidence, {'guidance_ratio': ratio}

    @property
    def weight_now(self) -> float:
        """Return w at the current optimizer step.

        Raises:
            ValueError: The length of the training is unknown.
        """
        step, num_steps, *_ = self.clock
        if num_steps is None:
            raise ValueError(
                'The weight of the guidance in PrevMatch depends on the length of the training, which is '
                "unknown. Train with a Runner, or call the optimizer wrapper's initialize_count_status."
            )
        return self.cfg.guidance_weight * triangle(step, num_steps)

    def adapt_checkpoint(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        for number, weights in saved_models(state_dict, f'{prefix}earlier.'):
            check_weights(self.student, weights, f'earlier model {number}')
