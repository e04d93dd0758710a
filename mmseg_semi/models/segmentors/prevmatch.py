"""PrevMatch: UniMatch whose views also learn the labels of earlier models of the same training (WACV 2026)."""

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

    All views of UniMatch learn its labels and, besides, those of an ensemble of earlier models, the guidance,

        L = 2 / (2 + w) * (1/2 L_x + 1/2 L_u + w/2 L_g),

    where L_g is UniMatch's L_u with the guidance's labels and threshold. In each iteration 1 to K of the
    earlier models are drawn and their logits are added up with random weights. w rises linearly to the
    middle of the training and falls to 0; without an earlier model it is 0.
    :class:`~mmseg_semi.engine.EarlierModelHook` decides when the student becomes an earlier model.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(UniMatch.Settings):
        num_models: int = setting(
            8,
            'Earlier models that are kept; one more takes the place of the oldest.',
            low=1,
            source='PrevMatch code, list_max_len',
        )
        max_drawn: int = setting(
            3,
            'K, the most earlier models that label in an iteration.',
            low=1,
            source='PrevMatch code, model_num',
        )
        random_number: bool = setting(
            True,
            'Draw 1 to K of them, each number as often; False: always K.',
            source='PrevMatch code, random_select',
        )
        guidance_tau: float = setting(
            0.9,
            "Confidence from which a pixel of the ensemble's label counts.",
            low=0,
            high=1,
            source='PrevMatch code, configs/pascal.yaml',
        )
        guidance_weight: float = setting(
            1.0,
            'Height of w, in the middle of the training.',
            low=0,
            source='PrevMatch code',
            reading='w, from 0 to this height and back to 0, step by step',
        )
        place: Literal['host', 'device'] = setting(
            'host',
            'Where the earlier models are kept: memory of the host, or of the device.',
            source='PrevMatch code: device',
        )

    cfg: Settings
    required_hooks = ('EarlierModelHook',)

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.earlier = EarlierModels(self.cfg.num_models, self.cfg.place)

    def keep_student(self) -> None:
        """Make the student, as it is now, the newest earlier model."""
        self.earlier.keep(self.student)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """L; before there is an earlier model, UniMatch's."""
        # Before the student's passes, whose activations take the memory.
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
        """Label the weak views by earlier models that are drawn now.

        Returns:
            tuple: int64 labels (N, H, W), 255 where a pixel is not learned from, float32 confidences
            (N, H, W), and the scalars for the log.
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
        """w at the running optimizer step.

        Raises:
            ValueError: Nothing has told how long the training is.
        """
        step, num_steps, *_ = self.clock
        if num_steps is None:
            raise ValueError(
                'PrevMatch does not know the length of the training, which the weight of the guidance '
                "depends on. Train with a Runner, or call the optimizer wrapper's initialize_count_status."
            )
        return self.cfg.guidance_weight * triangle(step, num_steps)

    def adapt_checkpoint(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        for number, weights in saved_models(state_dict, f'{prefix}earlier.'):
            check_weights(self.student, weights, f'earlier model {number}')
