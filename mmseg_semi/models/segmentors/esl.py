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
    """Of the 3x3 Conv-BN-ReLU blocks between the decoder and its classifier."""

    num_convs: int = setting(3, 'Convolutions before the classifier.', low=1, source='Sec. 4.1')
    channels: int = setting(256, 'Channels of each.', low=1)
    dropout_ratio: float = setting(
        0.1, "Dropout before the classifier, in place of the head's own.", low=0, below=1
    )


@MODELS.register_module()
class ESL(MeanTeacherSegmentor):
    """ESL, "Enhanced Soft Label for Semi-Supervised Semantic Segmentation" (ICCV 2023).

    The teacher's label of a pixel keeps the classes that are dominant there (Eq. 3-5) instead of the most
    probable one, and the student learns all pixels of CutMix views from it (Eq. 6). Besides, confident and
    labeled pixels are pulled towards stored features of their own part of their class and pushed away from
    all others (Eq. 7-12, :class:`~mmseg_semi.models.part_contrast.PartContrast`). The authors published no
    code: where the paper leaves something open, a setting holds our reading.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacherSegmentor.Settings, PartContrast.Settings):
        unlabeled_start: int = setting(
            0,
            'Optimizer steps of labeled training before the unlabeled images enter.',
            low=0,
            reading='optimizer steps of labeled training first',
        )
        soft_weight: float = setting(0.2, 'Factor of the soft-label loss.', low=0, source='Eq. 6')
        eta: float = setting(
            0.95,
            'Probability that the dominant classes of a pixel reach together.',
            above=0,
            high=1,
            source='Eq. 3-5',
        )
        top_classes: int | None = setting(
            None,
            'Keep so many most probable classes instead; 1 is the hard label.',
            low=1,
            hint='1 is the hard label, and None keeps the classes that eta chooses.',
        )
        cutmix: dict | None = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
            'CutMix of unlabeled images; None trains on the weak view.',
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
        """Whether classes have parts, so that there is a module ``contrast``."""
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
                "the checkpoint's decode head is a stock one, and this config puts convolutions before its "
                'classifier. Set semi_train_cfg.segmentation_head=None to keep the stock head, or load a '
                'checkpoint of ESL.'
            )
        super().check_checkpoint(name, weights)

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        labeled = batch.labeled.images
        output = self.forward_network(self.student, labeled, len(labeled), tap=self.contrasts)
        losses = self.labeled_loss(output, batch)
        if self.contrasts:
            # DistributedDataParallel waits for a gradient of each parameter.
            losses['loss_contrast'] = 0 * self.student.decode_head.projector(output.decoder).sum()
        return losses

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The labeled loss, Eq. 6 on the mixed images, and Eq. 10 on all."""
        labeled, weak = batch.labeled.images, batch.weak
        mix = self.cutmix.plan(len(weak), batch.size, labeled.device)
        teacher = self.forward_teacher(batch)
        teacher_logits = teacher.logits[-len(weak) :]
        confidence, label = self.most_probable(teacher_logits, batch.size)
        sure = (confidence > self.cfg.anchor_threshold) & weak.valid
        if self.contrasts:
            anchors = self.find_anchors(batch, teacher, confidence, label, sure, mix)
        del teacher  # its features need no memory while the student learns
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
        """The teacher encoder's features (N, D, h, w) of normalized images, which assign pixels to parts."""
        return self.contrast.stage_of(self.teacher.extract_feat(images))

    @without_gradients()
    def forward_teacher(self, batch: Batch) -> NetworkOutput:
        """The teacher on the unmixed unlabeled images, behind the labeled ones where there are parts.

        Of the encoder's features the one stage is left that assigns pixels to parts.
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
        """Remember the parts of all images, and say which pixels may be anchors (Eq. 7-9).

        Args:
            batch (Batch): The images' labels and valid masks.
            teacher (NetworkOutput): Of :meth:`forward_teacher`.
            confidence, label (Tensor): (N, H, W) of the unmixed unlabeled images.
            sure (Tensor): bool (N, H, W), their pixels that are confident enough for an anchor.
            mix (CutMixPlan): How they are mixed.

        Returns:
            tuple[Tensor, Tensor]: int64 (B + N, h, w) on the grid of the decoder's features, of the labeled and
            the mixed images: the classes of what may be an anchor, 255 elsewhere, and the parts.
        """
        # Shrunk first: the grid has a sixteenth of the pixels.
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
        """Eq. 3-6, weighted, and the shares of pixels by their number of dominant classes.

        Args:
            logits (Tensor): (N, C, h, w) of the student, of the mixed images.
            teacher_logits (Tensor): (N, C, h, w) of the unmixed images.
            mix (CutMixPlan): How they are mixed.
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
