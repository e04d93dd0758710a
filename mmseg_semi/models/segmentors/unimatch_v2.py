"""UniMatch V2: an EMA teacher, two strong views with complementary channels (TPAMI 2025)."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.perturbation import sample_complementary_masks, scale_channels
from ..features import channel_widths, map_features
from ..gradients import without_gradients
from .base import NetworkOutput, check_ranges
from .mean_teacher import MeanTeacherSegmentor
from .two_views import TwoViewSegmentor


@MODELS.register_module()
class UniMatchV2(TwoViewSegmentor, MeanTeacherSegmentor):
    """UniMatch V2, "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation".

    The EMA teacher labels the weak view of an image; the student learns these labels, where the teacher is
    confident, from two strong views, each with its own photometry and CutMix. Between encoder and
    decoder the views of half of the images lose channels, each those that the other keeps: with
    M ~ Bernoulli(1/2) for each channel the features are multiplied by 2 M and 2 (1 - M),

        L = 1/2 L_x + 1/2 (H(p_w, p_s1) + H(p_w, p_s2)) / 2,

    where H is the sum of the confident pixels' cross-entropy over the number of all that are not padding. What
    the paper leaves open is as in the released code (LiheYoung/UniMatch-V2, unimatch_v2.py and
    model/semseg/dpt.py), but for the partner of CutMix: there the batch in reverse, whose middle image meets
    itself, here the image that follows, or for the second view the one before.

    One step costs a forward of the teacher on the weak image, and forwards and backwards of the student on the
    labelled image and two views of the unlabelled one: 10 forwards of an image pair.

    Settings of ``semi_train_cfg``:

    - ``tau`` (float, 0.95): Confidence from which a pixel of the teacher counts.
    - ``labeled_weight`` (float, 0.5), ``unlabeled_weight`` (float, 0.5): Factors of L_x and of the strong
      views' mean.
    - ``dropout_prob`` (float, 0.5): Share of the images whose views lose channels, of every stage that the head
      may read; 0 leaves the features alone.
    - ``joint_forward`` (bool, False): Labelled images pass the network by themselves, and both strong views
      together, as in the released code, whose network has no batch normalisation. True: one pass for all.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before the unlabelled images enter.
    - ``ignore_padding`` (bool, True): Padding is neither learnt nor counted.
    - ``cutmix`` (dict | None): Config of the CutMix of both strong views; None leaves it out.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    train_defaults = {**TwoViewSegmentor.train_defaults, 'dropout_prob': 0.5}
    readings = {
        **TwoViewSegmentor.readings,
        'dropout_prob': 'share of images with complementary dropout',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        check_ranges(self.semi_train_cfg, {'dropout_prob': (0, 1)})

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        if not self.started:
            output, _ = self.forward_views(self.student, labeled)
            return self.weighted_labeled_loss(output, data_samples['labeled'])
        with without_gradients():
            weak_logits = self.forward_network(self.teacher, inputs['weak']).logits
        labels = self.make_labels(weak_logits, data_samples['weak'])
        strong, plans = self.mix_views(inputs)
        if cfg['joint_forward']:
            output, logits = self.forward_complementary(labeled, *strong)
        else:
            _, logits = self.forward_complementary(labeled[:0], *strong)
            output = self.forward_network(self.student, labeled, len(labeled))
        strong_loss = self.strong_loss(logits, labels, plans)
        return {
            **self.weighted_labeled_loss(output, data_samples['labeled']),
            'loss_strong': cfg['unlabeled_weight'] * strong_loss,
            **labels.diagnostics,
        }

    def forward_complementary(
        self, labeled: Tensor, first: Tensor, second: Tensor
    ) -> tuple[NetworkOutput, list[Tensor]]:
        """Run the student on labelled images, of which there may be none, and on two views in one stream.

        The views' features lose complementary channels on their way to the decoder.

        Returns:
            tuple: The labelled output, and the logits of each view.
        """
        num_labeled = len(labeled)
        features = self.student.extract_feat(torch.cat([labeled, first, second]))
        masks = sample_complementary_masks(
            len(first),
            channel_widths(features),
            self.semi_train_cfg['dropout_prob'],
            device=first.device,
        )

        def drop(feature: Tensor, mask: Tensor) -> Tensor:
            return torch.cat([feature[:num_labeled], scale_channels(feature[num_labeled:], mask)])

        output = self.forward_heads(self.student, map_features(drop, features, masks), num_labeled)
        own, *views = output.logits.split([num_labeled, len(first), len(second)])
        return NetworkOutput(own, output.auxiliary), views
