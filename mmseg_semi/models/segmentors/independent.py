"""Several networks of one architecture, each with weights of its own, that label images for each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ...functional.losses import cross_entropy
from ...functional.mixing import paste, sample_boxes
from ...functional.pseudo_label import confidence_and_label, label_entropy
from ..gradients import without_gradients
from ..recompute import recomputed
from .base import NetworkOutput, SemiSegmentor

CUTMIX = (None, 'in_batch', 'pair')


class Views(NamedTuple):
    """The unlabelled images of one iteration: what is labelled, and what is learnt from the labels.

    Attributes:
        batches (list[Tensor]): Images (N, 3, H, W) to label; two lists' where pairs are mixed, else one.
        valid (list[Tensor]): bool (N, H, W), likewise: False where a pixel is not learnt from.
        real (list[Tensor]): bool (N, H, W), likewise: False at padding.
        boxes (Tensor, optional): int64 (N, K, 4), cut out of the first batch and filled from its partners.
        images (Tensor): (N, 3, H, W) to learn: the first batch, cut and pasted if there are boxes.
    """

    batches: list[Tensor]
    valid: list[Tensor]
    real: list[Tensor]
    boxes: Tensor | None
    images: Tensor

    def mixed(self, labels: Sequence[Tensor]) -> Tensor:
        """Labels (N, H, W) of the batches as those of :attr:`images`, 255 where nothing is learnt."""
        labels = [
            label.masked_fill(~valid, 255) for label, valid in zip(labels, self.valid, strict=True)
        ]
        return _cut_and_pasted(labels, self.boxes)

    def label_entropy(self, label: Tensor, num_classes: int) -> Tensor:
        """Entropy of the classes in labels (N, H, W) that :meth:`mixed` has made, padding left out."""
        real = _cut_and_pasted(self.real, self.boxes)
        return label_entropy(label.masked_fill(~real, 0), num_classes, real)


def _cut_and_pasted(batches: Sequence[Tensor], boxes: Tensor | None) -> Tensor:
    if boxes is None:
        return batches[0]
    # Of one batch, each image's partner is the next one.
    patch = batches[1] if len(batches) > 1 else batches[0].roll(-1, dims=0)
    return paste(batches[0], patch, boxes)


class IndependentSegmentor(SemiSegmentor):
    """Base of the methods whose networks differ by their initialisation alone.

    Each network is built from the config and initialised by itself: encoders from the same pre-trained
    weights, heads at random. Networks that began alike would stay alike and teach each other nothing, so
    identical heads are refused before the first iteration.

    Networks are in train mode also where they only label, so that batch normalisation takes the
    statistics of the batch, as CPS's code does: give heads no dropout (``dropout_ratio=0``), or it disturbs the
    labels.

    Settings of ``semi_train_cfg`` that all of these methods have:

    - ``cutmix`` ('pair' | 'in_batch' | None): CutMix with three boxes in every iteration, as in CPS. 'pair':
      the unlabelled batch is two, its second half is pasted into its first, and the first half is learnt. With
      the sampler's ``unlabeled_streams=2``, which this needs, an epoch takes every image once for each
      purpose. 'in_batch': into each image, the next one of its batch.
    - ``ignore_padding`` (bool, False): Padding of unlabelled images is not learnt from. CPS's code labels and
      learns it like any pixel, and GPS is read likewise; configs for images of one's own leave it out (True).
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before the unlabelled images enter.
    - ``recompute`` (bool, False): Do not keep activations but compute them again in the backward pass; one more
      forward for each that carries gradients.

    Args: see :class:`SemiSegmentor`.
    """

    #: Networks that label for each other, whose heads must differ.
    students: tuple[str, ...] = ('student1', 'student2')
    default_predictor = 'student1'
    unlabeled_branches = ('weak',)
    train_defaults = {
        'cutmix': 'pair',
        'ignore_padding': False,
        'unlabeled_start': 0,
        'recompute': False,
    }
    readings = {
        'cutmix': 'images that are pasted from',
        'ignore_padding': 'padding not learnt from',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        if cfg['cutmix'] not in CUTMIX:
            raise ValueError(
                f'semi_train_cfg.cutmix={cfg["cutmix"]!r} is unknown: choose one of {CUTMIX}.'
            )
        if segmentor.get('backbone', {}).get('with_cp'):
            raise ValueError(
                'segmentor.backbone.with_cp=True breaks the several forwards of '
                f'{type(self).__name__} under DistributedDataParallel: set semi_train_cfg.recompute=True.'
            )
        for key, value in cfg.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and not 0 <= value < float('inf'):
                raise ValueError(
                    f'semi_train_cfg.{key}={value} is out of range: give a number of at least 0.'
                )

    @property
    def unlabeled_batches(self) -> int:
        return 2 if self.semi_train_cfg['cutmix'] == 'pair' else 1

    @property
    def started(self) -> bool:
        """Whether the unlabelled images have entered; a number of the host, the same on all ranks."""
        return self.clock.step >= self.semi_train_cfg['unlabeled_start']

    def check_start(self) -> None:
        for name, module in self.named_modules():
            # What MMEngine's switch has put in the place of the method.
            if hasattr(module.__dict__.get('forward'), '__wrapped__'):
                raise ValueError(
                    f'activation_checkpointing of {name} breaks the several forwards of {type(self).__name__}: '
                    'take it out and set semi_train_cfg.recompute=True.'
                )
        self._warn_of_dropout()
        first, second = (
            list(getattr(self, name).decode_head.parameters()) for name in self.students
        )
        if all(torch.equal(*pair) for pair in zip(first, second, strict=True)):
            names = ' and '.join(self.students)
            raise ValueError(
                f'{names} have the same weights in their heads and would only repeat each other: let each draw '
                'its own (no constant init_cfg), and instead of a plain checkpoint in load_from, which fills '
                'all networks, give pre-trained weights of the encoder alone (segmentor.pretrained).'
            )

    def _warn_of_dropout(self) -> None:
        for name, module in getattr(self, self.students[0]).named_modules():
            # What auxiliary heads say labels nothing.
            if isinstance(module, _DropoutNd) and module.p > 0 and 'auxiliary_head' not in name:
                print_log(
                    f'{name} drops {module.p:g} of its input while it labels images, for networks label in '
                    'train mode: set dropout_ratio=0.',
                    logger='current',
                    level=logging.WARNING,
                )

    def forward_network(
        self, network: nn.Module, images: Tensor, num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        try:
            return self._forward_network(network, images, num_auxiliary, tap)
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise ValueError(
                f'{len(images)} image on a process leaves batch normalisation one value per channel after '
                "the head's pooling: make sampler.labeled and sampler.unlabeled at least 2 (with pairs 4), or "
                'take SyncBN.'
            ) from error

    def _forward_network(self, network, images, num_auxiliary, tap) -> NetworkOutput:
        if not (self.semi_train_cfg['recompute'] and torch.is_grad_enabled()):
            return super().forward_network(network, images, num_auxiliary, tap)
        # Apart, so that no more than an encoder or a head is in memory at once.
        names = ('decode_head', 'auxiliary_head')
        decoder = [module for name, module in network.named_children() if name in names]
        encoder = [module for name, module in network.named_children() if name not in names]
        features = recomputed(network.extract_feat, encoder, images)
        return recomputed(self.forward_heads, decoder, network, features, num_auxiliary, tap)

    def draw_boxes(self, num: int, size: tuple[int, int]) -> Tensor:
        """Draw CPS's three boxes for each image, int64 (num, 3, 4) on the host."""
        return sample_boxes(num, size, style='cps')

    def make_views(self, weak: Tensor, data_samples: Sequence) -> Views:
        """Sort the unlabelled images (M, 3, H, W) into those to label and those to learn, and mix them."""
        cfg = self.semi_train_cfg
        real = torch.cat([sample.valid_mask.data for sample in data_samples]).bool()
        valid = real if cfg['ignore_padding'] else torch.ones_like(real)
        if len(weak) % self.unlabeled_batches:
            raise ValueError(
                f"cutmix='pair' pastes half of the unlabelled images into the others, of {len(weak)}: "
                'make train_dataloader.sampler.unlabeled even.'
            )
        if cfg['cutmix'] == 'in_batch' and len(weak) < 2:
            raise ValueError(
                "cutmix='in_batch' pastes one unlabelled image into another, of 1 on a process: make "
                'train_dataloader.sampler.unlabeled at least 2.'
            )
        batches = list(weak.chunk(self.unlabeled_batches))
        boxes = None
        if cfg['cutmix'] is not None:
            boxes = self.draw_boxes(len(batches[0]), tuple(weak.shape[-2:]))
            boxes = boxes.to(weak.device, non_blocking=True)
        valid, real = (list(one.chunk(self.unlabeled_batches)) for one in (valid, real))
        return Views(batches, valid, real, boxes, _cut_and_pasted(batches, boxes))

    @without_gradients()
    def predict_batches(self, network: nn.Module, views: Views) -> list[Tensor]:
        """Small logits of the images to label, batch by batch, without gradients."""
        return [self.forward_network(network, batch).logits for batch in views.batches]

    def hard_label(self, logits: Sequence[Tensor], views: Views) -> Tensor:
        """Most probable classes, whatever their probability, as labels of the images to learn."""
        size = tuple(views.images.shape[-2:])
        return views.mixed(
            [confidence_and_label(one, size, self.align_corners)[1] for one in logits]
        )

    def pseudo_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels of the batch that have a label."""
        return cross_entropy(logits, label, align_corners=self.align_corners)

    def network_loss(
        self, name: str, output: NetworkOutput, data_samples: Sequence
    ) -> dict[str, Tensor]:
        """The losses of labelled images of one network, under keys that begin with its name."""
        losses = self.labeled_loss(getattr(self, name), output, data_samples)
        return {f'{name}.{key}': value for key, value in losses.items()}
