"""U2PL: reliable pixels are pseudo-labels, unreliable ones are negatives (CVPR 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.contrast import class_mean, pixels_at, sample_entries, sample_places
from ...functional.losses import cross_entropy, drawn_contrast_logits
from ...functional.mixing import paste
from ...functional.parts import masked_average_pool, resize_nearest
from ...functional.pseudo_label import confidence_and_label, label_entropy
from ...functional.reliability import (
    class_rank,
    labeled_negatives,
    masked_quantile,
    pixel_entropy,
    unlabeled_negatives,
    unreliable_mask,
    unreliable_share,
)
from ..features import at_least_float
from ..gradients import without_gradients
from ..heads import conv_stack, install_tap
from ..memory import NegativeMemoryBank
from .base import NetworkOutput, merge_settings
from .mean_teacher import MeanTeacherSegmentor


class Targets(NamedTuple):
    """What the teacher makes of a batch.

    Attributes:
        images (Tensor): (N, 3, H, W), the unlabelled images after CutMix.
        label (Tensor): int64 (N, H, W), their reliable pseudo-labels, 255 elsewhere.
        weight (Tensor): Scalar, the reciprocal of the reliable share.
        diagnostics (dict[str, Tensor]): Scalars for the log.
        anchors (Tensor): int64 (B + N, h, w), the classes of what may be an anchor in the labelled and the
            mixed images, 255 elsewhere.
        centers (Tensor): (C, D), mean of the teacher's representations of each class.
    """

    images: Tensor
    label: Tensor
    weight: Tensor
    diagnostics: dict[str, Tensor]
    anchors: Tensor | None = None
    centers: Tensor | None = None


@MODELS.register_module()
class U2PL(MeanTeacherSegmentor):
    """U2PL, "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels".

    The teacher labels the unlabelled images, they are cut and pasted, and the share alpha_t of their pixels
    where the teacher's entropy is highest is unreliable (Eq. 5-6), with alpha_t = alpha_0 (1 - t / T). The
    student learns the other pixels,

        L_u = eta · 1 / (reliable share) · mean over the reliable pixels of CE,

    and a pixel-wise contrast on a representation head beside the classifier (Eq. 4),

        L_c = 1/C Σ_c mean over anchors z of
              -log(e^{cos(z, z_c+)/tau} / (e^{cos(z, z_c+)/tau} + Σ_n e^{cos(z, n)/tau})).

    Anchors of class c are representations of labelled pixels of the class and of reliable ones with its
    pseudo-label, where the teacher gives it more than delta_p; z_c+ is the mean of the teacher's
    representations of these pixels, and the negatives n come from the class's memory bank. In it are the
    teacher's representations of unreliable pixels that rank c from r_l to r_h, and of labelled pixels of
    another class that rank c below r_l. Ranks count from 0, the most probable class.

    The largest difference to the authors' code lies in these negatives: there the mask of what is stored for c
    is multiplied by the labels of class c (``compute_contra_memobank_loss``, the repository's issue 171), so
    that no labelled pixel ever is a negative, and of the unreliable ones those alone whose pseudo-label, of the
    pass before CutMix, is c while the pass behind it ranks c from r_l to r_h. ``negatives='code'`` does so.

    Where the equations leave something open: t is the optimizer step and not the epoch; entropy, ranks and
    representations are the teacher's of the *mixed* images, as in the authors' code (Haochen-Wang409/U2PL),
    but in eval mode; a pixel at the threshold is reliable; padding is no pixel; the representation head
    reads the features before the classifier, which any decode head has, where the authors' has an input of
    two layers earlier. An empty bank or a class without anchors gives 0. Their code pairs anchors with
    another class's negatives where a class is missing from the batch; that is not reproduced.

    One step costs a forward of the teacher on the unlabelled images, one on the labelled and the mixed ones,
    and a joint forward and backward of the student on these: 9 forwards of an image pair, and the heads.

    Memory on the device beyond the network: the bank has (C - 1) · 30000 + 50000 rows of 256 numbers, 666 MB
    of float32 for 21 classes and 604 MB for 19, and is a part of every checkpoint. New keys take 22 MB for each
    process that sends them, twice; until the backward pass the contrast holds 0.31 GB, of which the drawn
    negatives, C · 50 · 256 rows, are 275 MB.

    Settings of ``semi_train_cfg``:

    - ``unlabeled_weight`` (float, 1.0): eta. ``contrast_weight`` (float, 0.1): Of L_c; 0 builds neither head
      nor bank. The authors' configs leave their factor at 1, but their code sums the loss over its n
      processes in place, which autograd does not see, and divides it by n: the gradients' weight, averaged
      over processes, is 1 / n, so 0.25 on 4 GPUs.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before all else enters. The authors have
      an epoch on Pascal VOC and none on Cityscapes.
    - ``unreliable_share`` (float, 0.2): alpha_0.
    - ``ignore_padding`` (bool, False): Padding of unlabelled images is neither learnt nor counted; the official
      code learns from it.
    - ``cutmix`` (dict | None): The CutMix of unlabelled images; None trains on the weak view.
    - ``representation`` (dict): ``num_convs`` 2, ``channels`` 256, ``out_channels`` 256, ``dropout_ratio`` 0.1:
      of the 3x3 Conv-BN-ReLU-dropout blocks, and of the 1x1 convolution behind them.
    - ``anchor_pixels`` ('reliable' | 'surest'): Unlabelled anchors are reliable, or, as in the authors' code,
      among the share alpha_t with the lowest entropy.
    - ``negatives`` ('paper' | 'code'): What enters the bank, as above.
    - ``anchor_threshold`` (float, 0.3): delta_p.
    - ``center_pixels`` ('anchors' | 'all'): The mean z_c+ is of what may be an anchor, or, as in the authors'
      code, also of pixels at or below delta_p.
    - ``num_anchors`` (int, 50), ``num_negatives`` (int, 256): M of a class, without replacement, and N of an
      anchor. The authors' code has 256 and 50, by which, they say, their results came about.
    - ``temperature`` (float, 0.5): tau.
    - ``class_average`` ('all' | 'present'): The sum over classes divides by C, or by the number of those that
      have an anchor, much as in the authors' code, where it is of those that the batch shows.
    - ``low_rank`` (int, 3), ``high_rank`` (int, 20): r_l and r_h.
    - ``queue_size`` (int, 30000), ``background_queue_size`` (int, 50000): Entries of a class's queue, and of
      that of class 0.
    - ``keys_per_step`` (int, 1024): New negatives of a class that a process stores in a micro-batch, drawn from
      all that there are. The authors' code stores all; so many places there must be, whether or not they are
      filled, for nothing to wait for the device.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    unlabeled_branches = ('weak',)
    training_only = ('decode_head.representation.',)
    train_defaults = {
        'unlabeled_weight': 1.0,
        'contrast_weight': 0.1,
        'unlabeled_start': 0,
        'unreliable_share': 0.2,
        'ignore_padding': False,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
        'representation': {},
        'anchor_pixels': 'reliable',
        'negatives': 'paper',
        'anchor_threshold': 0.3,
        'center_pixels': 'anchors',
        'num_anchors': 50,
        'num_negatives': 256,
        'temperature': 0.5,
        'class_average': 'all',
        'low_rank': 3,
        'high_rank': 20,
        'queue_size': 30000,
        'background_queue_size': 50000,
        'keys_per_step': 1024,
    }
    readings = {
        'contrast_weight': 'factor of L_c',
        'unlabeled_start': 'optimizer steps of labeled training first',
        'anchor_pixels': 'unlabelled anchors',
        'negatives': 'what enters the memory bank',
        'center_pixels': 'pixels whose mean is z_c+',
        'num_anchors': 'M, anchors of a class',
        'num_negatives': 'N, negatives of an anchor',
        'class_average': 'classes that L_c is divided by',
        'keys_per_step': 'negatives of a class stored in a micro-batch',
        'ignore_padding': 'padding neither learnt nor counted',
        'cutmix': 'probability and box of CutMix',
    }
    representation_defaults = {
        'num_convs': 2,
        'channels': 256,
        'out_channels': 256,
        'dropout_ratio': 0.1,
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        self.cutmix = self.build_cutmix()
        if self.contrasts:
            if cfg['low_rank'] >= self.num_classes:
                raise ValueError(
                    f'semi_train_cfg.low_rank={cfg["low_rank"]} leaves no class of {self.num_classes} that an '
                    f'unreliable pixel is a negative of: set it to at most {self.num_classes - 1}.'
                )
            self.bank = NegativeMemoryBank(
                self.num_classes,
                cfg['queue_size'],
                cfg['background_queue_size'],
                self.student.decode_head.representation[-1].out_channels,
            )

    @property
    def contrasts(self) -> bool:
        return self.semi_train_cfg['contrast_weight'] > 0

    @classmethod
    def network_config(cls, segmentor: dict, semi_train_cfg: dict) -> dict:
        _check_settings(merge_settings('semi_train_cfg', cls.train_defaults, semi_train_cfg))
        return segmentor

    def add_training_modules(self, network: nn.Module) -> None:
        if not self.contrasts:
            return
        head, settings = network.decode_head, self.semi_train_cfg['representation']
        settings = merge_settings(
            'semi_train_cfg.representation', self.representation_defaults, settings
        )
        out_channels, ratio = settings.pop('out_channels'), settings.pop('dropout_ratio')
        if out_channels < 1 or not 0 <= ratio < 1:
            raise ValueError(
                f'semi_train_cfg.representation has out_channels={out_channels} and dropout_ratio={ratio}: '
                'give at least 1 channel and a ratio of at least 0 and below 1.'
            )
        blocks = conv_stack(head, install_tap(head), **settings)
        layers = [layer for block in blocks for layer in (block, nn.Dropout2d(ratio))]
        last = nn.Conv2d(settings['channels'], out_channels, kernel_size=1)
        head.representation = nn.Sequential(*layers, last)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        labeled = inputs['labeled']
        started = self.clock.step >= self.semi_train_cfg['unlabeled_start']
        targets = self.make_targets(inputs, data_samples) if started else None
        images = torch.cat([labeled, targets.images]) if started else labeled
        output = self.forward_network(self.student, images, len(labeled), tap=self.contrasts)
        first = output._replace(logits=output.logits[: len(labeled)])
        losses = self.labeled_loss(self.student, first, data_samples['labeled'])
        if started:
            losses['loss_unlabeled'] = self.unlabeled_loss(output.logits[len(labeled) :], targets)
            losses.update(targets.diagnostics)
        if self.contrasts:
            features = self.student.decode_head.representation(output.decoder)
            losses.update(self.contrast_loss(features, targets))
        return losses

    @property
    def alpha(self) -> float:
        """Share of unreliable pixels in this step."""
        start = self.semi_train_cfg['unreliable_share']
        if self.clock.num_steps is None:
            return start
        return unreliable_share(self.clock.step, self.clock.num_steps, start)

    @without_gradients()
    def make_targets(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Targets:
        """Label the weak images, cut and paste them, and tell reliable pixels from the others (Eq. 5-6)."""
        cfg, weak = self.semi_train_cfg, inputs['weak']
        size, corners = tuple(weak.shape[-2:]), self.align_corners
        confidence, label = confidence_and_label(
            self.forward_network(self.teacher, weak).logits, size, corners
        )
        real = torch.cat([sample.valid_mask.data for sample in data_samples['weak']]).bool()
        valid = real if cfg['ignore_padding'] else torch.ones_like(real)
        diagnostics = {'pseudo_label_entropy': label_entropy(label, self.num_classes, real)}
        images = weak
        if self.cutmix is not None:
            plan = self.cutmix.sample(confidence.new_zeros(len(weak)), size)
            images, label, valid = (
                paste(one, one[plan.partner], plan.boxes) for one in (weak, label, valid)
            )
            diagnostics['cutmix_rate'] = plan.triggered.float()

        labeled = inputs['labeled'] if self.contrasts else weak[:0]
        teacher = self.forward_network(
            self.teacher, torch.cat([labeled, images]), tap=self.contrasts
        )
        teacher = teacher._replace(encoder=[])  # which need not stay in memory
        entropy = pixel_entropy(teacher.logits[len(labeled) :], size, corners)
        unreliable, threshold = unreliable_mask(entropy, self.alpha, valid)
        label = label.masked_fill(~valid, 255)
        reliable = label.masked_fill(unreliable, 255)
        kept, total = (reliable != 255).sum(), valid.sum()
        diagnostics['entropy_threshold'] = threshold.masked_fill(total == 0, 0)
        diagnostics['reliable_ratio'] = kept / total.clamp(min=1)
        targets = Targets(images, reliable, total / kept.clamp(min=1), diagnostics)
        if not self.contrasts:
            return targets
        candidates = reliable
        if cfg['anchor_pixels'] == 'surest':
            surest = entropy <= masked_quantile(entropy, self.alpha, valid)
            candidates = label.masked_fill(~surest, 255)
        truth = torch.cat([sample.gt_sem_seg.data for sample in data_samples['labeled']]).long()
        anchors, centers = self.remember(teacher, truth, candidates, unreliable, label)
        return targets._replace(anchors=anchors, centers=centers)

    def remember(
        self,
        teacher: NetworkOutput,
        truth: Tensor,
        candidates: Tensor,
        unreliable: Tensor,
        pseudo: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Choose what may be an anchor, average it by class, and store new negatives (Sec. 3.3).

        All of it lives on the grid of the decoder's features.

        Args:
            teacher (NetworkOutput): Of the labelled and the mixed images.
            truth (Tensor): int64 (B, H, W).
            candidates (Tensor): int64 (N, H, W), pseudo-labels of what may be an anchor, 255 elsewhere.
            unreliable (Tensor): bool (N, H, W).
            pseudo (Tensor): int64 (N, H, W), pseudo-labels of all pixels but padding, 255 there.

        Returns:
            tuple: Anchors and centres, see :class:`Targets`.
        """
        cfg = self.semi_train_cfg
        grid = teacher.decoder.shape[-2:]
        truth, candidates, unreliable, pseudo = (
            resize_nearest(one, grid, self.align_corners)
            for one in (truth, candidates, unreliable, pseudo)
        )
        probs = at_least_float(teacher.logits).softmax(dim=1)
        label = torch.cat([truth, candidates])
        own = probs.gather(1, label.masked_fill(label == 255, 0)[:, None])[:, 0]
        anchors = label.masked_fill(own <= cfg['anchor_threshold'], 255)

        features = self.teacher.decode_head.representation(teacher.decoder)
        ranks = class_rank(probs).split([len(truth), len(candidates)])
        of_labeled = labeled_negatives(ranks[0], truth, cfg['low_rank'])
        of_unlabeled = unlabeled_negatives(ranks[1], unreliable, cfg['low_rank'], cfg['high_rank'])
        if cfg['negatives'] == 'code':
            classes = torch.arange(self.num_classes, device=pseudo.device)[:, None, None]
            of_labeled = torch.zeros_like(of_labeled)
            of_unlabeled = of_unlabeled & (pseudo[:, None] == classes)
        negatives = torch.cat([of_labeled, of_unlabeled])
        # By class: (K, C) places of all images' pixels, the same K on every rank.
        place = sample_places(negatives.transpose(0, 1).flatten(1), cfg['keys_per_step']).t()
        keys = pixels_at(features, place.flatten()).unflatten(0, place.shape)
        self.bank.append(keys, place >= 0)

        pixels = anchors if cfg['center_pixels'] == 'anchors' else label
        one_part = torch.zeros_like(pixels)
        means, counts = masked_average_pool(features, pixels, one_part, self.num_classes, 1)
        sums = (means * counts[..., None]).sum(dim=0)[:, 0]
        return anchors, sums / counts.sum(dim=0).clamp(min=1)

    def unlabeled_loss(self, logits: Tensor, targets: Targets) -> Tensor:
        """eta times the cross-entropy of the reliable pixels over their share (Sec. 3.2)."""
        loss = cross_entropy(logits, targets.label, align_corners=self.align_corners)
        return self.semi_train_cfg['unlabeled_weight'] * targets.weight * loss

    def contrast_loss(self, features: Tensor, targets: Targets | None) -> dict[str, Tensor]:
        """Eq. 4, weighted.

        Args:
            features (Tensor): (B + N, D, h, w) of the student's representation head.
            targets (Targets, optional): None before ``unlabeled_start``, when the representation head, as a
                part of the network that is trained, gets a gradient of 0.
        """
        cfg, bank = self.semi_train_cfg, self.bank
        if targets is None:
            return {'loss_contrast': 0 * features.sum()}
        classes = torch.arange(self.num_classes, device=features.device)
        place = sample_places(targets.anchors.flatten() == classes[:, None], cfg['num_anchors'])
        anchors = pixels_at(features, place.flatten()).unflatten(0, place.shape)
        queue = classes[:, None, None].expand(*place.shape, cfg['num_negatives'])
        rows = sample_entries(queue, bank.fill, bank.starts)
        # Class by class, so that what a product needs besides its arguments exists for one class at a time.
        terms = torch.cat(
            [
                drawn_contrast_logits(
                    anchors[c],
                    targets.centers[c].expand_as(anchors[c]),
                    bank.entries[rows[c].clamp(min=0)],
                    rows[c] >= 0,
                    cfg['temperature'],
                )
                for c in range(self.num_classes)
            ]
        )
        there = place >= 0
        label, counted = classes[:, None].expand_as(place).flatten(), there.flatten()
        loss = class_mean(terms.logsumexp(1) - terms[:, 0], label, counted, self.num_classes)
        present = there.any(dim=1)
        if cfg['class_average'] == 'present':
            loss = loss * (self.num_classes / present.sum().clamp(min=1))
        with torch.no_grad():
            compared = counted & (rows >= 0).any(dim=2).flatten()
            right = compared & (terms[:, 0] > terms[:, 1:].amax(dim=1))
        return {
            'loss_contrast': cfg['contrast_weight'] * loss,
            'contrast_accuracy': right.sum() / compared.sum().clamp(min=1),
            'anchor_classes_ratio': present.float().mean(),
            'bank_fill_ratio': (bank.fill / bank.limits).mean(),
        }


def _check_settings(cfg: dict) -> None:
    """Refuse values that no training could mean."""
    choices = {
        'anchor_pixels': ('reliable', 'surest'),
        'negatives': ('paper', 'code'),
        'center_pixels': ('anchors', 'all'),
        'class_average': ('all', 'present'),
    }
    for key, known in choices.items():
        if cfg[key] not in known:
            raise ValueError(
                f"semi_train_cfg.{key}='{cfg[key]}' is unknown: choose one of {known}."
            )
    least = {
        'unlabeled_weight': 0,
        'contrast_weight': 0,
        'unlabeled_start': 0,
        'num_anchors': 1,
        'num_negatives': 1,
        'low_rank': 0,
        'queue_size': 1,
        'background_queue_size': 1,
        'keys_per_step': 1,
    }
    for key, low in least.items():
        if cfg[key] < low:
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]} is out of range: give a number of at least {low}.'
            )
    for key in ('unreliable_share', 'anchor_threshold'):
        if not 0 <= cfg[key] <= 1:
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]} is out of range: give a number in [0, 1].'
            )
    if not cfg['temperature'] > 0:
        raise ValueError(
            f'semi_train_cfg.temperature={cfg["temperature"]} must be above 0: the paper takes 0.5.'
        )
    if cfg['high_rank'] <= cfg['low_rank']:
        raise ValueError(
            f'semi_train_cfg.high_rank={cfg["high_rank"]} leaves no rank from low_rank={cfg["low_rank"]} on: '
            'set it above low_rank.'
        )
