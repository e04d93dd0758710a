"""FixMatch: one network labels its weak view and learns the strong one (NeurIPS 2020), for segmentation."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.losses import confident_cross_entropy
from ...functional.mixing import paste
from ...functional.pseudo_label import confidence_and_label, confident_ratio, label_entropy
from ..gradients import without_gradients
from .base import SemiSegmentor, check_choices, check_forwards, check_ranges, evaluating


@MODELS.register_module()
class FixMatch(SemiSegmentor):
    """FixMatch, "Simplifying Semi-Supervised Learning with Consistency and Confidence" (NeurIPS 2020).

    The network's own class of a pixel of the weak view, where its probability reaches ``tau``, is the label
    of that pixel in the strong view (Eq. 4): hard labels, cross-entropy, no teacher. For segmentation as
    re-run in UniMatch (CVPR 2023, Sec. 3.1, and LiheYoung/UniMatch): strong means colour and blur, then
    CutMix of images, labels and masks between the images of a batch.

    Readings. That code labels the images that it trains in train mode, in the forward of the labelled ones,
    and those that it pastes from in eval mode, beforehand; here the partner of an image is the next one of
    its batch, and both are labelled by ``label_mode``. It divides the sum by all pixels that are not
    padding, and adds both losses at half their weight, which the configs of the benchmarks set.

    One step costs a forward of the network on labelled and weak images and one on the strong view, both with
    their backward: 9 forwards of an image pair. With ``label_mode='eval'`` 7, since the weak view then has no
    backward. Memory: one set of weights; in train mode the activations of three views.

    Settings of ``semi_train_cfg``:

    - ``tau`` (float, 0.95): Confidence from which a pixel counts; 0 takes all (UniMatch on Cityscapes).
    - ``labeled_weight``, ``unlabeled_weight`` (float, 1.0): Factors of the losses.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before the unlabelled images enter.
    - ``divisor`` ('valid' | 'confident' | 'area'): Of the unlabelled loss: the pixels that are not padding,
      those of them that count, or all.
    - ``label_mode`` ('train' | 'eval'): Label the weak view in train mode, in the forward of the labelled
      images, whose batch statistics it shares; or in eval mode, in a forward of its own. In train mode the
      heads' ``dropout_ratio`` acts on the labels, too: the re-run's network has none, so set it to 0.
    - ``joint_forward`` (bool, False): True passes the strong view in the forward of the labelled images, too,
      as the paper's code does (google-research/fixmatch).
    - ``ignore_padding`` (bool, True): Padding is neither learnt from nor counted.
    - ``cutmix`` (dict | None): The CutMix of strong views; None leaves it out.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    unlabeled_branches = ('weak', 'strong')
    train_defaults = {
        'tau': 0.95,
        'labeled_weight': 1.0,
        'unlabeled_weight': 1.0,
        'unlabeled_start': 0,
        'divisor': 'valid',
        'label_mode': 'train',
        'joint_forward': False,
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'unimatch', 'per_image': True},
    }
    readings = {
        'divisor': 'pixels that the unlabelled loss is divided by',
        'label_mode': 'mode of the network that labels',
        'joint_forward': 'batch normalisation over labelled and strong images together',
        'labeled_weight': 'factor of the labelled loss',
        'unlabeled_weight': 'factor of the unlabelled loss',
        'ignore_padding': 'padding neither learnt nor counted',
        'cutmix': 'probability and box of CutMix',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        weights = ('labeled_weight', 'unlabeled_weight', 'unlabeled_start')
        check_ranges(cfg, {'tau': (0, 1), **dict.fromkeys(weights, (0, None))})
        check_choices(
            cfg, {'divisor': ('valid', 'confident', 'area'), 'label_mode': ('train', 'eval')}
        )
        check_forwards(segmentor, cfg['joint_forward'])
        self.cutmix = self.build_cutmix()

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        if self.clock.step < cfg['unlabeled_start']:
            output, _ = self.forward_views(self.student, labeled)
            return self.weighted_labeled_loss(output, data_samples['labeled'])
        weak, view = inputs['weak'], inputs['strong']
        plan = None
        if self.cutmix is not None:
            plan = self.cutmix.sample(view.new_zeros(len(view)), tuple(view.shape[-2:]))
            view = paste(view, view[plan.partner], plan.boxes)
        if cfg['label_mode'] == 'eval':
            with without_gradients(), evaluating(self.student):
                weak_logits = self.forward_network(self.student, weak).logits
            first = []
        else:
            first = [weak]
        if cfg['joint_forward']:
            output, logits = self.forward_views(self.student, labeled, *first, view)
        else:
            output, logits = self.forward_views(self.student, labeled, *first)
            logits = [*logits, self.forward_network(self.student, view).logits]
        if first:
            weak_logits = logits[0].detach()
        label, confidence, valid, diagnostics = self.make_targets(
            weak_logits, data_samples['weak'], tuple(weak.shape[-2:]), plan
        )
        loss = confident_cross_entropy(
            logits[-1],
            label,
            confidence,
            cfg['tau'],
            valid_mask=valid,
            divisor=cfg['divisor'],
            align_corners=self.align_corners,
        )
        return {
            **self.weighted_labeled_loss(output, data_samples['labeled']),
            'loss_unlabeled': cfg['unlabeled_weight'] * loss.mean(),
            **diagnostics,
        }

    @torch.no_grad()
    def make_targets(self, logits: Tensor, samples: list, size: tuple[int, int], plan) -> tuple:
        """Labels of the weak view, pasted like the strong one.

        Args:
            logits (Tensor): (N, C, h, w) of the weak view.
            samples (list[SegDataSample]): With its valid masks.
            size (tuple): (H, W) of the images.
            plan (CutMixPlan, optional): What is pasted where.

        Returns:
            tuple: int64 label, float32 confidence and bool valid mask (N, H, W) of the mixed images, and
            the scalars for the log.
        """
        confidence, label = confidence_and_label(logits, size, self.align_corners)
        real = torch.cat([sample.valid_mask.data for sample in samples]).bool()
        valid = real if self.semi_train_cfg['ignore_padding'] else torch.ones_like(real)
        tau = self.semi_train_cfg['tau']
        diagnostics = {
            'confident_ratio': confident_ratio(confidence, tau, valid).mean(),
            'pseudo_label_entropy': label_entropy(label, self.num_classes, real),
        }
        if plan is not None:
            label, confidence, valid = (
                paste(maps, maps[plan.partner], plan.boxes) for maps in (label, confidence, valid)
            )
            diagnostics['cutmix_rate'] = plan.triggered.float().mean()
        return label, confidence, valid, diagnostics
