"""Several networks of one architecture with different weights that create pseudo-labels for each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...functional.losses import cross_entropy
from ...functional.pseudo_label import label_entropy
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..gradients import without_gradients
from ..recompute import recomputed
from ..settings import setting
from .base import SemiSegmentor
from .networks import NetworkOutput, checkpointed_modules


class IndependentSegmentor(SemiSegmentor):
    """Base of the methods whose networks differ only in their initialization.

    Each network is built from the config and initialized separately: encoders from the same pre-trained
    weights, heads at random. Networks with equal weights would stay equal and could not teach each other, so
    identical heads raise an error before the first iteration.

    Networks also label in train mode, so that batch normalization uses the statistics of the batch, as in the
    code of CPS. Dropout in the heads disturbs the pseudo-labels. Set ``dropout_ratio=0``.

    Args: see :class:`SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings):
        cutmix: Literal['pair', 'in_batch'] | None = setting(
            'pair',
            "CutMix with three boxes in every iteration. 'pair': the second half of the unlabeled batch is "
            'pasted into the first half, and the networks are trained on the result; set '
            "sampler.unlabeled_streams=2. 'in_batch': each image receives the next image of the batch. None "
            'disables CutMix.',
            source='CPS code',
            reading='source images of CutMix',
        )
        ignore_padding: bool = setting(
            False,
            'Exclude the padding of unlabeled images from the loss. False treats it like any pixel. Use True '
            'for your own images.',
            source='CPS code',
            reading='padding excluded from the loss',
        )
        joint_forward: bool = setting(
            False,
            'Run labeled and unlabeled images in one forward pass, in training and to create pseudo-labels. '
            'False: separately. Use True for your own images: separate statistics of batch normalization can '
            'collapse the training.',
            source='CPS code: False',
            reading='batch normalization over labeled and unlabeled images together',
        )
        recompute: bool = setting(
            False,
            'Recompute activations in the backward pass instead of storing them. Saves memory and repeats each '
            'forward pass that has gradients.',
        )

    cfg: Settings
    #: Networks that create pseudo-labels for each other. Their heads must differ.
    students: tuple[str, ...] = ('student1', 'student2')
    default_predictor = 'student1'
    unlabeled_branches = ('weak',)

    def check_segmentor(self, segmentor: dict) -> None:
        if segmentor.get('backbone', {}).get('with_cp'):
            raise ValueError(
                f'segmentor.backbone.with_cp=True does not work with the several forward passes of '
                f'{type(self).__name__} under DistributedDataParallel. Set with_cp=False and '
                'semi_train_cfg.recompute=True.'
            )

    @property
    def unlabeled_batches(self) -> int:
        return 2 if self.cfg.cutmix == 'pair' else 1

    def check_start(self) -> None:
        for name in checkpointed_modules(self):
            raise ValueError(
                f'activation_checkpointing of {name} does not work with the several forward passes of '
                f'{type(self).__name__}. Remove it and set semi_train_cfg.recompute=True.'
            )
        super().check_start()
        first, second = (
            list(getattr(self, name).decode_head.parameters()) for name in self.students
        )
        if all(torch.equal(*pair) for pair in zip(first, second, strict=True)):
            names = ' and '.join(self.students)
            raise ValueError(
                f'{names} have the same weights in their heads and would only repeat each other. Use a random '
                'init_cfg. Instead of load_from with a plain checkpoint, which initializes all networks, set '
                'segmentor.pretrained to pre-trained weights of the encoder.'
            )

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        unlabeled //= self.unlabeled_batches
        return labeled + unlabeled if self.cfg.joint_forward else min(labeled, unlabeled)

    # ------------------------------------------------------------------ forwards
    def forward_network(
        self, network: nn.Module, images: Tensor, num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        if not (self.cfg.recompute and torch.is_grad_enabled()):
            return super().forward_network(network, images, num_auxiliary, tap)
        # Recompute encoder and heads separately, so that memory holds the activations of one of them.
        names = ('decode_head', 'auxiliary_head')
        decoder = [module for name, module in network.named_children() if name in names]
        encoder = [module for name, module in network.named_children() if name not in names]
        features = recomputed(network.extract_feat, encoder, images)
        return recomputed(self.forward_heads, decoder, network, features, num_auxiliary, tap)

    @without_gradients()
    def label_weak(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return small logits (M, C, h, w) of the unlabeled images. Each half of pairs has its own forward."""
        labeled = batch.labeled.images if self.cfg.joint_forward else batch.labeled.images[:0]
        halves = batch.weak.images.chunk(self.unlabeled_batches)
        inputs = [torch.cat([labeled, half]) for half in halves]
        return torch.cat(
            [self.forward_network(network, one).logits[len(labeled) :] for one in inputs]
        )

    # ------------------------------------------------------------------ labels and losses
    def learn_labeled(
        self, batch: Batch, names: tuple[str, ...], *images: Tensor
    ) -> tuple[dict[str, NetworkOutput], dict[str, Tensor], list[Tensor]]:
        """Run networks on the labeled images, and on mixed images (N, 3, H, W) in the same forward pass.

        Returns:
            tuple: The outputs on labeled images by network; the labeled losses, with the name of the network as
            a prefix; the small logits of the mixed images, one per network, if such images are given.
        """
        outputs, losses, logits = {}, {}, []
        for name in names:
            network = getattr(self, name)
            output, mixed = self.forward_views(network, batch.labeled.images, *images)
            own = self.labeled_loss(output, batch, network)
            outputs[name] = output
            losses.update({f'{name}.{key}': loss for key, loss in own.items()})
            logits.extend(mixed)
        return outputs, losses, logits

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        return self.learn_labeled(batch, self.optimized[update])[1]

    def hard_label(self, logits: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Return the most probable classes without a threshold, in the form of :meth:`mixed_label`."""
        _, label = self.most_probable(logits, batch.size)
        return self.mixed_label(label, batch, mix)

    def mixed_label(self, label: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Mix classes (M, H, W) of the weak views into labels (N, H, W) of the mixed views; 255 is ignored."""
        return mix(label.masked_fill(~batch.weak.valid, 255))

    def pseudo_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean cross-entropy over the labeled pixels of the batch."""
        return cross_entropy(logits, label, align_corners=self.align_corners)

    def cross_loss(self, logits: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Return the cross pseudo supervision: each student's loss on the other's labels (GPS, Eq. 6)."""
        return self.pseudo_loss(logits[0], labels[1]) + self.pseudo_loss(logits[1], labels[0])

    def mixed_label_entropy(self, label: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Return the entropy of the class distribution in labels of mixed images, without padding."""
        real = mix(batch.weak.real)
        return label_entropy(label.masked_fill(~real, 0), self.num_classes, real)
