"""UniMatch: one network, two strong views and perturbed features (CVPR 2023)."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.perturbation import sample_channel_masks, scale_channels
from ..features import channel_widths, map_features
from ..gradients import without_gradients
from .base import NetworkOutput, check_choices, evaluating
from .two_views import TwoViewSegmentor


@MODELS.register_module()
class UniMatch(TwoViewSegmentor):
    """UniMatch, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation".

    One network labels the weak view of an image, and learns these labels, where it is confident, from three
    perturbations: two strong views, each with its own photometry and CutMix, and the weak view whose
    features lose half of their channels between encoder and decoder,

        L   = 1/2 L_x + 1/2 L_u
        L_u = 1/2 H(p_w, p_fp) + 1/2 (H(p_w, p_s1) + H(p_w, p_s2)) / 2,

    where H is the sum of the confident pixels' cross-entropy over the number of all that are not padding.
    The factors 1/2 are the paper's lambda and mu, and those of the released code (LiheYoung/UniMatch,
    unimatch.py: 0.25, 0.25 and 0.5, halved). Two differences from that code: the partner of CutMix is of the
    same batch, the image that follows or for the second view the one before, and labelled images are
    not decoded once more from perturbed features, for the statistics of batch normalisation alone.

    One step costs forwards and backwards of the student on the labelled image and on three views of the
    unlabelled one, of which the weak one passes the decoder twice: 12 forwards of an image pair and that
    decoder's, and one more with ``label_mode='eval'``.

    Settings of ``semi_train_cfg``:

    - ``tau`` (float, 0.95): Confidence from which a pixel of the weak view counts. Cityscapes: 0.
    - ``labeled_weight`` (float, 0.5), ``unlabeled_weight`` (float, 0.5): Factors of L_x and L_u.
    - ``feature_weight`` (float, 0.5), ``strong_weight`` (float, 0.5): lambda and mu, the factors of the
      perturbed features' term and of the strong views' mean.
    - ``dropout_ratio`` (float, 0.5): Share of channels that are dropped, of every stage that the head may read.
    - ``label_mode`` ('train' | 'eval'): The weak view is labelled by the pass that is trained, in training
      mode, or by one of its own in eval mode. The released code does the former for an image itself and
      the latter for what CutMix pastes into it, which here is labelled once. In train mode the heads'
      ``dropout_ratio`` (MMSegmentation's 0.1) acts on the labels, too: that code's network has none, so set
      it to 0.
    - ``joint_forward`` (bool, False): Labelled and weak images pass the network together, and so do the strong
      ones: batch normalisation sees either, as in the released code. True: one pass for all.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before the unlabelled images enter.
    - ``ignore_padding`` (bool, True): Padding is neither learnt nor counted.
    - ``cutmix`` (dict | None): Config of the CutMix of both strong views; None leaves it out.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    train_defaults = {
        **TwoViewSegmentor.train_defaults,
        'feature_weight': 0.5,
        'strong_weight': 0.5,
        'dropout_ratio': 0.5,
        'label_mode': 'train',
    }
    readings = {
        **TwoViewSegmentor.readings,
        'feature_weight': "lambda, the perturbed features' share of L_u",
        'strong_weight': "mu, the strong views' share of L_u",
        'label_mode': 'mode of the network that labels',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        check_choices(cfg, {'label_mode': ('train', 'eval')})
        if not 0 <= cfg['dropout_ratio'] < 1:
            raise ValueError(
                f'semi_train_cfg.dropout_ratio={cfg["dropout_ratio"]} is no share of dropped channels: give a '
                'number of at least 0 and below 1.'
            )

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled, weak = self.semi_train_cfg, inputs['labeled'], inputs['weak']
        if not self.started:
            output, _ = self.forward_views(self.student, labeled)
            return self.weighted_labeled_loss(output, data_samples['labeled'])
        strong, plans = self.mix_views(inputs)
        weak_logits = None
        if cfg['label_mode'] == 'eval':
            with without_gradients(), evaluating(self.student):
                weak_logits = self.forward_network(self.student, weak).logits
        if cfg['joint_forward']:
            output, views, perturbed = self.forward_perturbed(labeled, *strong, weak)
        else:
            output, views, perturbed = self.forward_perturbed(labeled, weak)
            views = [*self.forward_network(self.student, torch.cat(strong)).logits.chunk(2), *views]
        labels = self.make_labels(
            views[-1] if weak_logits is None else weak_logits, data_samples['weak']
        )
        feature_loss = self.view_loss(perturbed, labels)
        strong_loss = self.strong_loss(views[:2], labels, plans)
        return {
            **self.weighted_labeled_loss(output, data_samples['labeled']),
            'loss_feature': cfg['unlabeled_weight'] * cfg['feature_weight'] * feature_loss,
            'loss_strong': cfg['unlabeled_weight'] * cfg['strong_weight'] * strong_loss,
            **labels.diagnostics,
        }

    def forward_perturbed(
        self, labeled: Tensor, *views: Tensor
    ) -> tuple[NetworkOutput, list[Tensor], Tensor]:
        """Run the student on labelled images and views, and its decoder on perturbed features of the last view.

        All pass the decoder together. Features of the last view that nobody asks for unperturbed, since it
        is labelled apart, stay out.

        Returns:
            tuple: The labelled output, the logits of the views, and those of the perturbed features.
        """
        cfg, num_last = self.semi_train_cfg, len(views[-1])
        features = self.student.extract_feat(torch.cat([labeled, *views]))
        widths = channel_widths(features)
        masks = sample_channel_masks(
            num_last, widths, cfg['dropout_ratio'], device=views[-1].device
        )
        if cfg['label_mode'] == 'eval':
            views = views[:-1]
        sizes = [len(labeled), *map(len, views), num_last]

        def perturb(feature: Tensor, mask: Tensor) -> Tensor:
            last = scale_channels(feature[-num_last:], mask)
            return torch.cat([feature[: sum(sizes[:-1])], last])

        output = self.forward_heads(
            self.student, map_features(perturb, features, masks), len(labeled)
        )
        first, *rest, perturbed = output.logits.split(sizes)
        return NetworkOutput(first, output.auxiliary), rest, perturbed
