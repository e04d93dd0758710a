"""ESL: dynamic soft labels and pixel-to-part contrast (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.contrast import (
    class_mean,
    pixels_at,
    sample_anchors,
    sample_negatives,
    sample_positives,
)
from ...functional.losses import contrast_logits
from ...functional.mixing import paste
from ...functional.parts import masked_average_pool, resize_nearest
from ...functional.pseudo_label import confidence_and_label, label_entropy
from ...functional.soft_label import dominant_soft_label, soft_label_cross_entropy, top_soft_label
from ..features import at_least_float
from ..gradients import without_gradients
from ..heads import conv_stack, install_tap
from ..memory import PartMemoryBank, PartPrototypes
from ..mixers import CutMixPlan
from .base import NetworkOutput, check_ranges, merge_settings
from .mean_teacher import MeanTeacherSegmentor


class Targets(NamedTuple):
    """What the teacher makes of a batch: the student's view and what it should say there.

    Attributes:
        images (Tensor): (N, 3, H, W), the unlabelled images after CutMix.
        teacher_logits (Tensor): (N, C, h, w) of the unmixed images.
        plan (CutMixPlan): What was pasted where, or None.
        valid (Tensor): bool (N, H, W), the mixed pixels that count.
        diagnostics (dict[str, Tensor]): Scalars for the log.
        anchors (Tensor): int64 (B + N, h, w), the classes of what may be an anchor in the labelled and the
            mixed images, 255 elsewhere.
        parts (Tensor): int64 (B + N, h, w), their parts.
        encoder (tuple[Tensor, Tensor]): Mean encoder feature of each part in each unmixed image, and the
            pixels behind it.
    """

    images: Tensor
    teacher_logits: Tensor
    plan: CutMixPlan | None
    valid: Tensor
    diagnostics: dict[str, Tensor]
    anchors: Tensor | None = None
    parts: Tensor | None = None
    encoder: tuple[Tensor, Tensor] | None = None


@MODELS.register_module()
class ESL(MeanTeacherSegmentor):
    """ESL, "Enhanced Soft Label for Semi-Supervised Semantic Segmentation".

    The teacher's label of a pixel keeps the classes that are dominant there (Eq. 3-5) instead of the most
    probable one, and the student learns all pixels of CutMix views from it (Eq. 6). Confident and labelled
    pixels are besides pulled towards stored features of their own *part* of their class, a cluster of the
    encoder's features, and pushed away from all others (Eq. 7-12). No code of the authors exists: where the
    paper is silent, a setting below holds our reading.

    One step costs a forward of the teacher and a joint forward and backward of the student on the labelled
    and the unlabelled images: 8 forwards of an image pair, and the heads.

    Memory of the contrast on the device beyond the network, at B = 16 images of 513 x 513 with 21 classes,
    K = 5, q = 200 and 512 channels in float32: of 266256 places at stride 4 at most A = 21000 are anchors. The
    bank and its normalised copy take 2 x 43 MB; the anchors, their places in the projector's output and their
    normalised copy 43 + 86 + 43 MB; the positives and theirs 2 x 43 MB; A x 255 negatives 43 MB, of which four
    while they are drawn; the similarities of 2048 anchors with the whole bank 172 MB at a time; what is kept
    of the chosen ones 4 x 21.5 MB. That makes at most 0.7 GB. Then the gradient at the projector's output
    takes 545 MB, beside at most 0.3 GB that are left of the rest. Telling and storing the parts goes image by
    image, below 0.2 GB. ``benchmarks/contrast_memory.py`` measures 0.72 GB in all on the CPU, and 0.35 GB at
    B = 4.

    Settings of ``semi_train_cfg``:

    - ``soft_weight`` (float, 0.2), ``contrast_weight`` (float, 0.1): Factors of the two losses.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before all else enters.
    - ``eta`` (float, 0.95): Probability that the dominant classes must reach.
    - ``top_classes`` (int | None): Keep so many most probable classes instead: 1 is the hard label.
    - ``ignore_padding`` (bool, True): Padding of unlabelled images is not learnt from.
    - ``cutmix`` (dict | None): The CutMix of unlabelled images; None trains on the weak view.
    - ``segmentation_head`` (dict | None): Convolutions before the head's classifier (``num_convs`` 3,
      ``channels`` 256, ``dropout_ratio`` 0.1); None keeps the stock head.
    - ``tap_after_dropout`` (bool, False): The projector reads the stock head's feature after its dropout.
    - ``projector`` (dict): ``num_convs`` 3, ``channels`` 512, ``out_channels`` 512.
    - ``projector_last_act`` (bool, True): False ends the projector in a linear layer.
    - ``num_parts`` (int, 5): K, parts of a class; 0 leaves the contrast out.
    - ``encoder_index``, ``encoder_channels`` (int | None): The encoder's stage that parts are told by, and its
      channels; None reads the last one that the decode head takes.
    - ``normalize_encoder`` (bool, True): Give encoder features unit length before they are averaged.
    - ``prototype_decay`` (float, 0.99): theta of Eq. 12.
    - ``min_conf_for_parts`` (float, 0): Confidence from which unlabelled pixels enter bank and prototypes.
    - ``queue_size`` (int, 200): q, features of a part that are stored.
    - ``num_negatives`` (int, 255), ``exclude_same_class`` (bool, False): Of an anchor; True takes none from
      other parts of its class.
    - ``temperature`` (float, 0.5): sigma of Eq. 10.
    - ``anchor_threshold`` (float, 0.95): zeta, which the confidence of unlabelled anchors exceeds.
    - ``anchor_ratio`` (float, 0.1), ``max_anchors`` (int, 1000): Share of a class's places that are anchors,
      and their most.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    unlabeled_branches = ('weak',)
    training_only = ('decode_head.projector.',)
    train_defaults = {
        'soft_weight': 0.2,
        'contrast_weight': 0.1,
        'unlabeled_start': 0,
        'eta': 0.95,
        'top_classes': None,
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
        'segmentation_head': {},
        'tap_after_dropout': False,
        'projector': {},
        'projector_last_act': True,
        'num_parts': 5,
        'encoder_index': None,
        'encoder_channels': None,
        'normalize_encoder': True,
        'prototype_decay': 0.99,
        'min_conf_for_parts': 0.0,
        'queue_size': 200,
        'num_negatives': 255,
        'exclude_same_class': False,
        'temperature': 0.5,
        'anchor_threshold': 0.95,
        'anchor_ratio': 0.1,
        'max_anchors': 1000,
    }
    readings = {
        'unlabeled_start': 'optimizer steps of labeled training first',
        'ignore_padding': 'padding not learnt from',
        'cutmix': 'strong augmentation: probability and box of CutMix',
        'tap_after_dropout': 'projector reads after dropout',
        'projector_last_act': 'ReLU at the end of the projector (Eq. 10)',
        'encoder_index': 'stage of the encoder that parts are told by (None: the last that is decoded)',
        'normalize_encoder': 'unit length in k-means, Eq. 7 and Eq. 12',
        'queue_size': 'features of a part that are stored',
        'min_conf_for_parts': 'confidence from which pixels enter bank and prototypes',
        'anchor_threshold': 'confidence that unlabelled anchors exceed, strictly',
        'anchor_ratio': 'share of places that are anchors (Eq. 9)',
        'num_negatives': 'of an anchor, fewer where the bank has fewer (Eq. 10)',
        'exclude_same_class': 'no negatives of the own class (Eq. 10)',
    }
    segmentation_head_defaults = {'num_convs': 3, 'channels': 256, 'dropout_ratio': 0.1}
    projector_defaults = {'num_convs': 3, 'channels': 512, 'out_channels': 512}

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        if cfg['top_classes'] is None:
            self.soft_label = partial(dominant_soft_label, eta=cfg['eta'])
        else:
            self.soft_label = partial(top_soft_label, num=cfg['top_classes'])
        self.cutmix = self.build_cutmix()
        if self.contrasts:
            self.required_hooks = (*self.required_hooks, 'PrototypeInitHook')
            self.encoder_index, channels = _encoder_stage(self.student.decode_head, cfg)
            self.prototypes = PartPrototypes(
                self.num_classes, cfg['num_parts'], channels, cfg['prototype_decay']
            )
            channels = self.student.decode_head.projector[-1].out_channels
            self.bank = PartMemoryBank(
                self.num_classes, cfg['num_parts'], cfg['queue_size'], channels
            )

    @property
    def contrasts(self) -> bool:
        return self.semi_train_cfg['num_parts'] > 0

    @classmethod
    def network_config(cls, segmentor: dict, semi_train_cfg: dict) -> dict:
        cfg = merge_settings('semi_train_cfg', cls.train_defaults, semi_train_cfg)
        _check_settings(cfg)
        if cfg['segmentation_head'] is None:
            return segmentor
        head = merge_settings(
            'semi_train_cfg.segmentation_head',
            cls.segmentation_head_defaults,
            cfg['segmentation_head'],
        )
        deep = {'type': 'DeepClassifierHead', 'head': segmentor['decode_head'], **head}
        return {**segmentor, 'decode_head': deep}

    def add_training_modules(self, network: nn.Module) -> None:
        if not self.contrasts:
            return
        cfg, head = self.semi_train_cfg, network.decode_head
        settings = merge_settings(
            'semi_train_cfg.projector', self.projector_defaults, cfg['projector']
        )
        channels = install_tap(head, cfg['tap_after_dropout'])
        head.projector = conv_stack(head, channels, last_act=cfg['projector_last_act'], **settings)

    def check_checkpoint(self, name: str, weights: dict[str, Tensor]) -> None:
        deep = [
            any('classifier_convs.' in key for key in keys)
            for keys in (getattr(self, name).state_dict(), weights)
        ]
        if deep == [True, False]:
            raise ValueError(
                "the checkpoint's decode head is a stock one, and this config puts convolutions before its "
                'classifier: set semi_train_cfg.segmentation_head=None to keep the stock head, or load a '
                'checkpoint of ESL.'
            )
        super().check_checkpoint(name, weights)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        labeled, cfg = inputs['labeled'], self.semi_train_cfg
        started = self.clock.step >= cfg['unlabeled_start']
        targets = self.make_targets(inputs, data_samples) if started else None
        images = torch.cat([labeled, targets.images]) if started else labeled
        output = self.forward_network(self.student, images, len(labeled), tap=self.contrasts)
        first = output._replace(logits=output.logits[: len(labeled)])
        losses = self.labeled_loss(self.student, first, data_samples['labeled'])
        if started:
            losses.update(self.soft_loss(output.logits[len(labeled) :], targets))
        if self.contrasts:
            features = self.student.decode_head.projector(output.decoder)
            losses.update(self.contrast_loss(features, targets))
        return losses

    @without_gradients()
    def encode(self, images: Tensor) -> Tensor:
        """The teacher encoder's features (N, D, h, w) of normalised images, by which parts are told."""
        return self.stage_of(self.teacher.extract_feat(images))

    def stage_of(self, encoded: Sequence) -> Tensor:
        """The one of the encoder's stages by which parts are told, (N, D, h, w).

        Raises:
            ValueError: There is no such stage, or it has other channels than the prototypes.
        """
        index, channels = self.encoder_index, self.prototypes.vectors.shape[2]
        if not -len(encoded) <= index < len(encoded):
            raise ValueError(
                f'semi_train_cfg.encoder_index={index} and the encoder gives {len(encoded)} stages: set it to '
                f'one of 0 to {len(encoded) - 1}.'
            )
        stage = encoded[index]
        if not isinstance(stage, Tensor):  # a vision transformer's map comes with its class token
            stage = stage[0]
        if stage.shape[1] != channels:
            raise ValueError(
                f'stage {index} of the encoder has {stage.shape[1]} channels and not {channels}: set '
                'semi_train_cfg.encoder_channels to its channels and encoder_index to its number.'
            )
        return stage

    @without_gradients()
    def make_targets(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Targets:
        """Label the weak images, tell and store their parts, cut and paste them (Eq. 3-8)."""
        cfg, weak = self.semi_train_cfg, inputs['weak']
        images = torch.cat([inputs['labeled'], weak]) if self.contrasts else weak
        teacher = self.forward_network(self.teacher, images, tap=self.contrasts)
        if self.contrasts:  # the other stages need not stay in memory
            teacher = teacher._replace(encoder=[self.stage_of(teacher.encoder)])
        logits = teacher.logits[-len(weak) :]
        confidence, label = confidence_and_label(logits, tuple(weak.shape[-2:]), self.align_corners)
        valid = torch.cat([sample.valid_mask.data for sample in data_samples['weak']]).bool()
        real = valid if cfg['ignore_padding'] else torch.ones_like(valid)
        sure = (confidence > cfg['anchor_threshold']) & real
        diagnostics = {
            'anchor_pixel_ratio': sure.sum() / real.sum().clamp(min=1),
            'pseudo_label_entropy': label_entropy(label, self.num_classes, valid),
        }
        plan = None
        mixed, mixed_real = weak, real
        inside = torch.zeros_like(valid)
        if self.cutmix is not None:
            plan = self.cutmix.sample(confidence.new_zeros(len(weak)), tuple(weak.shape[-2:]))
            mixed, mixed_real, inside = (
                paste(one, other, plan.boxes)
                for one, other in (
                    (weak, weak[plan.partner]),
                    (real, real[plan.partner]),
                    (inside, ~inside),
                )
            )
            diagnostics['cutmix_rate'] = plan.triggered.float()
        targets = Targets(mixed, logits, plan, mixed_real, diagnostics)
        if not self.contrasts:
            return targets

        # All that follows lives on the grid of the decoder's features, at a quarter of the images' size.
        def to_grid(maps: Tensor) -> Tensor:
            return resize_nearest(maps, teacher.decoder.shape[-2:], self.align_corners)

        truth = to_grid(
            torch.cat([sample.gt_sem_seg.data for sample in data_samples['labeled']]).long()
        )
        label, sure, inside = to_grid(label), to_grid(sure), to_grid(inside)
        known = to_grid((confidence >= cfg['min_conf_for_parts']) & real)
        parts, encoder = self.remember(teacher, torch.cat([truth, label.masked_fill(~known, 255)]))
        anchors = label.masked_fill(~(sure & known), 255)
        first, second = parts[: len(truth)], parts[len(truth) :]
        if plan is not None:
            anchors = torch.where(inside, anchors[plan.partner], anchors)
            second = torch.where(inside, second[plan.partner], second)
        return targets._replace(
            anchors=torch.cat([truth, anchors]), parts=torch.cat([first, second]), encoder=encoder
        )

    def remember(
        self, teacher: NetworkOutput, label: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tell each pixel's part, store the parts' mean features, and average the encoder's (Eq. 7-8).

        Args:
            teacher (NetworkOutput): Of the unmixed labelled and unlabelled images, with the one stage of the
                encoder.
            label (Tensor): int64 (N, h, w) at the decoder's size.

        Returns:
            tuple: The parts (N, h, w), and what :meth:`PartPrototypes.collect` takes.
        """
        cfg, features = self.semi_train_cfg, teacher.encoder[0]
        parts = self.prototypes.assign(features, label, self.align_corners)
        small = [
            resize_nearest(maps, features.shape[-2:], self.align_corners) for maps in (label, parts)
        ]
        stored, followed = [], []
        for i in range(len(label)):
            # One by one: the projector's output of all images would be the largest tensor of the step.
            one = slice(i, i + 1)
            projected = self.teacher.decode_head.projector(teacher.decoder[one])
            stored.append(self._pool(projected, label[one], parts[one]))
            encoded = at_least_float(features[one])
            if cfg['normalize_encoder']:
                encoded = F.normalize(encoded, dim=1)
            followed.append(self._pool(encoded, small[0][one], small[1][one]))
        means, counts = (torch.cat(maps) for maps in zip(*stored, strict=True))
        self.bank.push(means, counts > 0)
        means, counts = (torch.cat(maps) for maps in zip(*followed, strict=True))
        return parts, (means, counts)

    def soft_loss(self, logits: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Eq. 6, weighted, and how many classes are dominant where."""
        values, classes_at = soft_label_cross_entropy(
            logits,
            targets.teacher_logits,
            tuple(targets.images.shape[-2:]),
            self.soft_label,
            partner=targets.plan and targets.plan.partner,
            boxes=targets.plan and targets.plan.boxes,
            valid_mask=targets.valid if self.semi_train_cfg['ignore_padding'] else None,
            align_corners=self.align_corners,
        )
        share = classes_at / classes_at.sum().clamp(min=1)
        return {
            'loss_soft': self.semi_train_cfg['soft_weight'] * values.mean(),
            'one_dominant_ratio': share[0],
            'two_dominant_ratio': share[1],
            'more_dominant_ratio': share[2],
            **targets.diagnostics,
        }

    def contrast_loss(self, features: Tensor, targets: Targets | None) -> dict[str, Tensor]:
        """Eq. 9-10, weighted; the prototypes follow behind the optimizer step (Eq. 12).

        Args:
            features (Tensor): (B + N, L, h, w) of the student's projector.
            targets (Targets, optional): None before ``unlabeled_start``, when the projector, as a part of the
                network that is trained, gets a gradient of 0.
        """
        cfg, bank = self.semi_train_cfg, self.bank
        if targets is None:
            return {'loss_contrast': 0 * features.sum()}
        index, label, counts, capped = sample_anchors(
            targets.anchors.flatten(),
            self.num_classes,
            ratio=cfg['anchor_ratio'],
            limit=cfg['max_anchors'],
        )
        parts = targets.parts.flatten()[index.clamp(min=0)].clamp(min=0)
        queue = label * cfg['num_parts'] + parts
        positive = sample_positives(queue, bank.fill, bank.capacity)
        block = cfg['num_parts'] if cfg['exclude_same_class'] else 1
        negatives = sample_negatives(
            queue, bank.fill, bank.capacity, cfg['num_negatives'], block=block
        )
        anchors = pixels_at(features, index)
        terms = contrast_logits(
            anchors,
            bank.entries[positive.clamp(min=0)],
            bank.entries,
            negatives,
            cfg['temperature'],
        )
        counted = (index >= 0) & (positive >= 0)
        loss = class_mean(terms.logsumexp(1) - terms[:, 0], label, counted, self.num_classes)
        with torch.no_grad():
            compared = counted & (negatives >= 0).any(dim=1)
            right = compared & (terms[:, 0] > terms[:, 1:].amax(dim=1))
            self.prototypes.collect(*targets.encoder)
        return {
            'loss_contrast': cfg['contrast_weight'] * loss,
            'contrast_accuracy': right.sum() / compared.sum().clamp(min=1),
            'anchor_classes_ratio': (counts > 0).float().mean(),
            'anchors_per_class': counts.sum() / (counts > 0).sum().clamp(min=1),
            'anchors_capped_ratio': capped.float().mean(),
            'bank_fill_ratio': bank.fill.float().mean() / bank.capacity,
        }

    def _pool(self, features: Tensor, label: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        return masked_average_pool(
            features, label, parts, self.num_classes, self.semi_train_cfg['num_parts']
        )


def _encoder_stage(head: nn.Module, cfg: dict) -> tuple[int, int]:
    """Index and channels of the encoder's stage that parts are told by."""
    index, channels = cfg['encoder_index'], cfg['encoder_channels']
    if (index is None) != (channels is None):
        raise ValueError(
            f'semi_train_cfg.encoder_index={index} and encoder_channels={channels} belong together: set both '
            'or none.'
        )
    if index is not None:
        return index, channels
    if head.input_transform == 'resize_concat':
        raise ValueError(
            f'{type(head).__name__} reads the stages {head.in_index} of the encoder as one: set '
            'semi_train_cfg.encoder_index and encoder_channels to one of them and its channels.'
        )
    several = isinstance(head.in_index, (list, tuple))
    return (
        (head.in_index[-1], head.in_channels[-1]) if several else (head.in_index, head.in_channels)
    )


def _check_settings(cfg: dict) -> None:
    """Refuse values that no training could mean."""
    ranges = {
        'soft_weight': (0, None),
        'contrast_weight': (0, None),
        'unlabeled_start': (0, None),
        'num_parts': (0, None),
        'prototype_decay': (0, 1),
        'min_conf_for_parts': (0, 1),
        'anchor_threshold': (0, 1),
        'queue_size': (1, None),
        'num_negatives': (1, None),
        'max_anchors': (1, None),
    }
    check_ranges(cfg, ranges)
    for key in ('eta', 'anchor_ratio'):
        if not 0 < cfg[key] <= 1:
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]} is no share: give a number above 0 and at most 1.'
            )
    if not cfg['temperature'] > 0:
        raise ValueError(
            f'semi_train_cfg.temperature={cfg["temperature"]} must be above 0: the paper takes 0.5.'
        )
    whole = isinstance(cfg['top_classes'], int) and cfg['top_classes'] >= 1
    if cfg['top_classes'] is not None and not whole:
        raise ValueError(
            f'semi_train_cfg.top_classes={cfg["top_classes"]} keeps no class: give 1 (the hard label) or more, '
            'or None for the classes that eta chooses.'
        )
