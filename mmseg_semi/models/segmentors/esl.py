"""ESL: dynamic soft labels and pixel-to-part contrast (ICCV 2023)."""

from __future__ import annotations

from functools import partial

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.resizing import resize_nearest
from ...functional.soft_label import dominant_soft_label, soft_label_cross_entropy, top_soft_label
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..gradients import without_gradients
from ..part_contrast import PartContrast
from ..settings import MethodSettings, setting
from .mean_teacher import MeanTeacherSegmentor
from .networks import NetworkOutput


class SegmentationHeadSettings(MethodSettings):
    """Settings of the 3x3 Conv-BN-ReLU blocks between the decoder and its classifier."""

    num_convs: int = setting(3, 'Convolutions before the classifier.', low=1, source='Sec. 4.1')
    channels: int = setting(256, 'Channels of each convolution.', low=1)
    dropout_ratio: float = setting(
        0.1, 'Dropout before the classifier; replaces the dropout of the head.', low=0, below=1
    )


@MODELS.register_module()
class ESL(MeanTeacherSegmentor):
    """ESL, "Enhanced Soft Label for Semi-Supervised Semantic Segmentation" (ICCV 2023).

    The teacher's pseudo-label of a pixel keeps all dominant classes (Eq. 3-5) instead of only the most probable
    one. The student is trained on all pixels of CutMix views with these soft labels (Eq. 6). A contrastive loss
    pulls labeled and confident pixels towards stored features of their part of their class and pushes them away
    from all others (Eq. 7-12, :class:`~mmseg_semi.models.part_contrast.PartContrast`). The authors did not
    publish code. Where the paper leaves something open, a setting holds our reading.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacherSegmentor.Settings, PartContrast.Settings):
        unlabeled_start: int = setting(
            0,
            'Optimizer steps on labeled images only, before the unlabeled loss starts.',
            low=0,
            reading='optimizer steps on labeled images only, at first',
        )
        soft_weight: float = setting(0.2, 'Weight of the soft-label loss.', low=0, source='Eq. 6')
        eta: float = setting(
            0.95,
            'Total probability that the dominant classes of a pixel must reach.',
            above=0,
            high=1,
            source='Eq. 3-5',
        )
        top_classes: int | None = setting(
            None,
            'Keep this number of most probable classes instead; 1 gives hard labels.',
            low=1,
            hint='1 gives hard labels, and None keeps the classes that eta selects.',
        )
        cutmix: dict | None = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
            'CutMix of unlabeled images; None trains on the unmixed weak view.',
            reading='strong augmentation: probability and box of CutMix',
        )
        segmentation_head: SegmentationHeadSettings | None = setting(
            SegmentationHeadSettings(),
            "Convolutions before the head's classifier; None keeps the stock head.",
        )

    cfg: Settings
    unlabeled_branches = ('weak',)
    training_only = ('decode_head.projector.',)
    renamed_modules = {'prototypes.': 'contrast.prototypes.', 'bank.': 'contrast.bank.'}

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.cfg
        if cfg.top_classes is None:
            self.soft_label = partial(dominant_soft_label, eta=cfg.eta)
        else:
            self.soft_label = partial(top_soft_label, num=cfg.top_classes)
        if self.contrasts:
            self.required_hooks = (*self.required_hooks, 'PrototypeInitHook')
            self.contrast = PartContrast(self.student.decode_head, self.num_classes, cfg)

    @property
    def contrasts(self) -> bool:
        """Whether the method has a module ``contrast``."""
        return self.cfg.num_parts > 0

    @classmethod
    def network_config(cls, segmentor: dict, cfg: Settings) -> dict:
        if cfg.segmentation_head is None:
            return segmentor
        options = cfg.segmentation_head.as_dict()
        deep = {'type': 'DeepClassifierHead', 'head': segmentor['decode_head'], **options}
        return {**segmentor, 'decode_head': deep}

    def add_training_modules(self, network: nn.Module) -> None:
        if self.contrasts:
            PartContrast.add_projector(network.decode_head, self.cfg)

    def check_checkpoint(self, name: str, weights: dict[str, Tensor]) -> None:
        deep = [
            any('classifier_convs.' in key for key in keys)
            for keys in (getattr(self, name).state_dict(), weights)
        ]
        if deep == [True, False]:
            raise ValueError(
                'the checkpoint has a stock decode head, but this config adds convolutions before the '
                'classifier. Set semi_train_cfg.segmentation_head=None to keep the stock head, or load a '
                'checkpoint of ESL.'
            )
        super().check_checkpoint(name, weights)

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        labeled = batch.labeled.images
        output = self.forward_network(self.student, labeled, len(labeled), tap=self.contrasts)
        losses = self.labeled_loss(output, batch)
        if self.contrasts:
            # DistributedDataParallel needs a gradient of each parameter.
            losses['loss_contrast'] = 0 * self.student.decode_head.projector(output.decoder).sum()
        return losses

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labeled loss, Eq. 6 for the mixed images, and Eq. 10 for all images."""
        labeled, weak = batch.labeled.images, batch.weak
        mix = self.cutmix.plan(len(weak), batch.size, labeled.device)
        teacher = self.forward_teacher(batch)
        teacher_logits = teacher.logits[-len(weak) :]
        confidence, label = self.most_probable(teacher_logits, batch.size)
        sure = (confidence > self.cfg.anchor_threshold) & weak.valid
        if self.contrasts:
            anchors = self.find_anchors(batch, teacher, confidence, label, sure, mix)
        del teacher  # frees its features before the student's forward pass
        images = torch.cat([labeled, mix(weak.images)])
        output = self.forward_network(self.student, images, len(labeled), tap=self.contrasts)
        first, logits = output.logits.split([len(labeled), len(weak)])
        losses = {
            **self.labeled_loss(output._replace(logits=first), batch),
            **self.soft_loss(logits, teacher_logits, mix, mix(weak.valid)),
            'anchor_pixel_ratio': sure.sum() / weak.valid.sum().clamp(min=1),
            **self.label_log(label, weak),
            **mix.log,
        }
        if self.contrasts:
            features = self.student.decode_head.projector(output.decoder)
            losses.update(self.contrast.loss(features, *anchors))
        return losses

    @without_gradients()
    def encode(self, images: Tensor) -> Tensor:
        """Return the features (N, D, h, w) of the teacher's encoder that assign pixels to parts."""
        return self.contrast.stage_of(self.teacher.extract_feat(images))

    @without_gradients()
    def forward_teacher(self, batch: Batch) -> NetworkOutput:
        """Run the teacher on the unmixed unlabeled images, with parts also on the labeled images before them.

        The output keeps only the encoder stage that assigns pixels to parts.
        """
        if not self.contrasts:
            return self.forward_network(self.teacher, batch.weak.images)
        images = torch.cat([batch.labeled.images, batch.weak.images])
        output = self.forward_network(self.teacher, images, tap=True)
        return output._replace(encoder=[self.contrast.stage_of(output.encoder)])

    @without_gradients()
    def find_anchors(
        self,
        batch: Batch,
        teacher: NetworkOutput,
        confidence: Tensor,
        label: Tensor,
        sure: Tensor,
        mix: CutMixPlan,
    ) -> tuple[Tensor, Tensor]:
        """Store the parts of all images and select the pixels that may be anchors (Eq. 7-9).

        Args:
            batch (Batch): Labels and valid masks of the images.
            teacher (NetworkOutput): Output of :meth:`forward_teacher`.
            confidence, label (Tensor): (N, H, W) of the unmixed unlabeled images.
            sure (Tensor): bool (N, H, W), pixels of these images that are confident enough for an anchor.
            mix (CutMixPlan): CutMix plan of these images.

        Returns:
            tuple[Tensor, Tensor]: int64 (B + N, h, w) each, at the resolution of the decoder's features, of the
            labeled and the mixed images. The first has the classes of possible anchors and 255 elsewhere, the
            second has the parts.
        """
        # Resized first, since the features have a sixteenth of the pixels.
        grid = tuple(teacher.decoder.shape[-2:])
        known = (confidence >= self.cfg.min_conf_for_parts) & batch.weak.valid
        truth, label, known, sure = (
            resize_nearest(maps, grid, self.align_corners)
            for maps in (batch.labeled.label, label, known, sure)
        )
        parts = self.contrast.remember(
            teacher.encoder[0],
            teacher.decoder,
            torch.cat([truth, label.masked_fill(~known, 255)]),
            self.teacher.decode_head.projector,
        )
        parts, mixed_parts = parts.split([len(truth), len(label)])
        anchors = label.masked_fill(~(sure & known), 255)
        anchors, mixed_parts = mix.on(grid, self.align_corners)(anchors, mixed_parts)
        return torch.cat([truth, anchors]), torch.cat([parts, mixed_parts])

    def soft_loss(
        self, logits: Tensor, teacher_logits: Tensor, mix: CutMixPlan, valid: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted loss of Eq. 3-6, and the fractions of pixels by number of dominant classes.

        Args:
            logits (Tensor): (N, C, h, w), the student's logits of the mixed images.
            teacher_logits (Tensor): (N, C, h, w), the teacher's logits of the unmixed images.
            mix (CutMixPlan): CutMix plan of the images.
            valid (Tensor): bool (N, H, W), the mixed pixels that count.
        """
        values, classes_at = soft_label_cross_entropy(
            logits,
            teacher_logits,
            tuple(valid.shape[-2:]),
            self.soft_label,
            partner=mix.partner,
            boxes=mix.boxes,
            valid_mask=valid,
            align_corners=self.align_corners,
        )
        share = classes_at / classes_at.sum().clamp(min=1)
        return {
            'loss_soft': self.cfg.soft_weight * values.mean(),
            'one_dominant_ratio': share[0],
            'two_dominant_ratio': share[1],
            'more_dominant_ratio': share[2],
        }
