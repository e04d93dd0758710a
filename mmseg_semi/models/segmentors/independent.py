"""Several networks of one architecture, each with weights of its own, that label images for each other."""

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
from .networks import NetworkOutput


class IndependentSegmentor(SemiSegmentor):
    """Base of the methods whose networks differ by their initialization alone.

    Each network is built from the config and initialized by itself: encoders from the same pre-trained
    weights, heads at random. Networks that start alike would stay alike and teach each other nothing, so
    identical heads are refused before the first iteration.

    Networks are in train mode also where they only label, so that batch normalization takes the statistics of
    the batch, as in CPS's code. Dropout in the heads would disturb the labels: set ``dropout_ratio=0``.

    Args: see :class:`SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings):
        cutmix: Literal['pair', 'in_batch'] | None = setting(
            'pair',
            "CutMix with three boxes in every iteration. 'pair': the unlabeled batch is two, as the sampler's "
            'unlabeled_streams=2 makes it; its second half is pasted into its first, which is learned. '
            "'in_batch': the next image of the batch is pasted into each. None leaves it out.",
            source='CPS code',
            reading='images that are pasted from',
        )
        ignore_padding: bool = setting(
            False,
            'Padding of unlabeled images is not learned from. False labels and learns it like any pixel. Take '
            'True for images of your own.',
            source='CPS code',
            reading='padding not learned from',
        )
        recompute: bool = setting(
            False,
            'Compute activations again in the backward pass instead of keeping them; one more forward for each '
            'that carries gradients.',
        )

    cfg: Settings
    #: Networks that label for each other, whose heads must differ.
    students: tuple[str, ...] = ('student1', 'student2')
    default_predictor = 'student1'
    unlabeled_branches = ('weak',)

    def check_segmentor(self, segmentor: dict) -> None:
        if segmentor.get('backbone', {}).get('with_cp'):
            raise ValueError(
                f'segmentor.backbone.with_cp=True breaks the several forwards of {type(self).__name__} under '
                'DistributedDataParallel. Set it to False, and semi_train_cfg.recompute=True instead.'
            )

    @property
    def unlabeled_batches(self) -> int:
        return 2 if self.cfg.cutmix == 'pair' else 1

    def check_start(self) -> None:
        for name, module in self.named_modules():
            # What MMEngine's switch has put in the place of the method.
            if hasattr(module.__dict__.get('forward'), '__wrapped__'):
                raise ValueError(
                    f'activation_checkpointing of {name} breaks the several forwards of {type(self).__name__}. '
                    'Remove it and set semi_train_cfg.recompute=True.'
                )
        super().check_start()
        first, second = (
            list(getattr(self, name).decode_head.parameters()) for name in self.students
        )
        if all(torch.equal(*pair) for pair in zip(first, second, strict=True)):
            names = ' and '.join(self.students)
            raise ValueError(
                f'{names} have the same weights in their heads and would only repeat each other. Let each draw '
                'its own (no constant init_cfg), and instead of a plain checkpoint in load_from, which fills '
                'all networks, give pre-trained weights of the encoder alone (segmentor.pretrained).'
            )

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        return min(labeled, unlabeled // self.unlabeled_batches)

    # ------------------------------------------------------------------ forwards
    def forward_network(
        self, network: nn.Module, images: Tensor, num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        if not (self.cfg.recompute and torch.is_grad_enabled()):
            return super().forward_network(network, images, num_auxiliary, tap)
        # One after the other, so that no more than an encoder or a head is in memory at once.
        names = ('decode_head', 'auxiliary_head')
        decoder = [module for name, module in network.named_children() if name in names]
        encoder = [module for name, module in network.named_children() if name not in names]
        features = recomputed(network.extract_feat, encoder, images)
        return recomputed(self.forward_heads, decoder, network, features, num_auxiliary, tap)

    @without_gradients()
    def label_weak(self, network: nn.Module, batch: Batch) -> Tensor:
        """Small logits (M, C, h, w) of the unlabeled images, in one forward for each half of pairs."""
        halves = batch.weak.images.chunk(self.unlabeled_batches)
        return torch.cat([self.forward_network(network, half).logits for half in halves])

    # ------------------------------------------------------------------ labels and losses
    def learn_labeled(
        self, batch: Batch, names: tuple[str, ...]
    ) -> tuple[dict[str, NetworkOutput], dict[str, Tensor]]:
        """Outputs of networks on the labeled images by name, and losses under keys that begin with it."""
        outputs, losses = {}, {}
        for name in names:
            network = getattr(self, name)
            output = self.forward_network(network, batch.labeled.images, len(batch.labeled))
            own = self.labeled_loss(output, batch, network)
            outputs[name] = output
            losses.update({f'{name}.{key}': loss for key, loss in own.items()})
        return outputs, losses

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        return self.learn_labeled(batch, self.optimized[update])[1]

    def hard_label(self, logits: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Most probable classes, whatever their probability, as by :meth:`mixed_label`."""
        _, label = self.most_probable(logits, batch.size)
        return self.mixed_label(label, batch, mix)

    def mixed_label(self, label: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Classes (M, H, W) of the weak views as labels (N, H, W) of the mixed ones, 255 where not learned."""
        return mix(label.masked_fill(~batch.weak.valid, 255))

    def pseudo_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels of the batch that have a label."""
        return cross_entropy(logits, label, align_corners=self.align_corners)

    def cross_loss(self, logits: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Cross pseudo supervision: each student learns the other's labels (GPS, Eq. 6)."""
        return self.pseudo_loss(logits[0], labels[1]) + self.pseudo_loss(logits[1], labels[0])

    def mixed_label_entropy(self, label: Tensor, batch: Batch, mix: CutMixPlan) -> Tensor:
        """Entropy of the classes in labels of the mixed images, without padding; a scalar for the log."""
        real = mix(batch.weak.real)
        return label_entropy(label.masked_fill(~real, 0), self.num_classes, real)
