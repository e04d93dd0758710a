"""Forward passes of a network, and the losses of its heads on labeled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ...functional.pseudo_label import confidence_and_label
from ..alignment import LabeledWeights
from ..batch import VOID
from ..gradients import no_stale_casts
from ..heads import tapped, tapping


class NetworkOutput(NamedTuple):
    """Small logits (before upsampling) of one network for a batch of images.

    Attributes:
        logits (Tensor): (N, C, h, w), output of the decode head.
        auxiliary (list[Tensor]): (M, C, h', w') of each auxiliary head, only for the labeled images.
        encoder (list[Tensor]): Stages of the encoder (N, D', h', w'), with ``tap=True``.
        decoder (Tensor, optional): (N, D, h, w), the features before the classifier, with ``tap=True``.
    """

    logits: Tensor
    auxiliary: list[Tensor]
    encoder: list[Tensor] = ()
    decoder: Tensor | None = None


class NetworkPasses:
    """Forward passes of one network, for labeled images only or together with unlabeled views."""

    def most_probable(self, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Label images from small logits (N, C, h, w).

        Returns:
            tuple: float32 confidences (N, H, W) and int64 classes (N, H, W). The class ``ignore_index`` of the
            heads becomes 255.
        """
        confidence, label = confidence_and_label(logits, size, self.align_corners)
        return confidence, self.without_ignored(label)

    def without_ignored(self, label: Tensor) -> Tensor:
        """Replace the class that the heads ignore, if there is one, by 255."""
        if not 0 <= self.ignore_index < self.num_classes:
            return label
        return label.masked_fill(label == self.ignore_index, VOID)

    @no_stale_casts()
    def forward_network(
        self, network: nn.Module, images: Tensor, num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        """Run one network.

        Auxiliary heads run on all images, so that their batch normalization uses the statistics of the joint
        batch, as in the code of iMAS and U2PL. They return the logits of the first ``num_auxiliary`` images,
        the labeled ones. With ``num_auxiliary=0`` they do not run.

        ``tap=True`` also returns the features of the encoder and of the decoder. The head needs a tap for it.
        """
        return self.forward_heads(network, network.extract_feat(images), num_auxiliary, tap)

    @no_stale_casts()
    def forward_heads(
        self, network: nn.Module, features: list[Tensor], num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        """Same as :meth:`forward_network`, but takes the features of the encoder."""
        decoder = None
        if tap:
            with tapping(network.decode_head):
                output = network.decode_head(features)
            logits, decoder = tapped(output, network.decode_head)
        else:
            logits = network.decode_head(features)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f'{type(network.decode_head).__name__} returns {type(logits).__name__} in training instead of '
                'one map of logits. Choose another decode head.'
            )
        auxiliary = []
        if num_auxiliary and network.with_auxiliary_head:
            heads = auxiliary_heads(network).values()
            auxiliary = [head(features)[:num_auxiliary] for head in heads]
        return NetworkOutput(logits, auxiliary, list(features) if tap else [], decoder)

    def forward_views(
        self, network: nn.Module, labeled: Tensor, *views: Tensor, joint: bool = True
    ) -> tuple[NetworkOutput, list[Tensor]]:
        """Run one network on the labeled images and on views of the unlabeled images.

        Args:
            network (nn.Module): A wrapped segmentor.
            labeled (Tensor): (B, 3, H, W).
            *views (Tensor): Unlabeled images with the same H, W.
            joint (bool): True: one forward pass, so that all images share the statistics of batch
                normalization. False: one forward pass each.

        Returns:
            tuple: The labeled output and the small logits of each view.
        """
        if not joint:
            output = self.forward_network(network, labeled, len(labeled))
            return output, [self.forward_network(network, view).logits for view in views]
        images = torch.cat([labeled, *views]) if views else labeled
        output = self.forward_network(network, images, len(labeled))
        first, *rest = output.logits.split([len(labeled), *map(len, views)])
        return NetworkOutput(first, output.auxiliary), rest


def head_losses(network: nn.Module, output: NetworkOutput, samples: Sequence) -> dict[str, Tensor]:
    """Return the losses of a network's heads on labeled images.

    The keys are those of MMSegmentation (``decode.loss_ce``, ``aux.loss_ce``). The accuracy that stock heads
    log is left out, since it takes a third of the time of the loss and waits for the device.

    Args:
        network (nn.Module): A wrapped segmentor.
        output (NetworkOutput): Output of the network for these images.
        samples (Sequence[SegDataSample]): Labels of the images.
    """
    losses = _head_loss(network.decode_head, output.logits, samples, 'decode')
    heads = auxiliary_heads(network)
    for (prefix, head), logits in zip(heads.items(), output.auxiliary, strict=True):
        losses.update(_head_loss(head, logits, samples, prefix))
    return losses


def auxiliary_heads(network: nn.Module) -> dict[str, nn.Module]:
    """Return a network's auxiliary heads by the prefix of their losses."""
    if not network.with_auxiliary_head:
        return {}
    head = network.auxiliary_head
    if isinstance(head, nn.ModuleList):
        return {f'aux_{index}': one for index, one in enumerate(head)}
    return {'aux': head}


def _head_loss(
    head: BaseDecodeHead, logits: Tensor, samples: Sequence, prefix: str
) -> dict[str, Tensor]:
    """Apply a head's ``loss_decode`` to small logits (N, C, h, w)."""
    if type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat:
        # The head overrides the loss. Its implementation may wait for the device.
        losses = head.loss_by_feat(logits, samples)
        return {f'{prefix}.{key}': value for key, value in losses.items() if 'loss' in key}
    label = torch.stack([sample.gt_sem_seg.data for sample in samples])
    modules = _loss_modules(head)
    small = all(getattr(module, 'accepts_small_logits', False) for module in modules)
    if not small or head.sampler is not None:
        logits = resize(
            logits, size=label.shape[2:], mode='bilinear', align_corners=head.align_corners
        )
    weight = None if head.sampler is None else head.sampler.sample(logits, label)
    losses: dict[str, Tensor] = {}
    for module in modules:
        extra = {'align_corners': head.align_corners} if small else {}
        value = module(
            logits, label.squeeze(1), weight=weight, ignore_index=head.ignore_index, **extra
        )
        key = f'{prefix}.{module.loss_name}'
        losses[key] = losses[key] + value if key in losses else value
    return losses


def _loss_modules(head: BaseDecodeHead) -> Sequence[nn.Module]:
    losses = head.loss_decode
    return losses if isinstance(losses, nn.ModuleList) else [losses]


def class_weights(network: nn.Module) -> LabeledWeights | None:
    """Return the class weights of the decode head's losses, or None if no loss has them.

    Raises:
        ValueError: ``class_weight`` does not have one value per class.
    """
    head = network.decode_head
    modules = [m for m in _loss_modules(head) if getattr(m, 'loss_weight', 1.0)]
    if all(getattr(module, 'class_weight', None) is None for module in modules):
        return None
    loss_weight = torch.tensor([getattr(module, 'loss_weight', 1.0) for module in modules])
    return LabeledWeights(
        torch.stack([_weights_of(module, head) for module in modules]),
        loss_weight / loss_weight.sum(),
        torch.tensor([isinstance(module, CrossEntropyLoss) for module in modules]),
    )


def _weights_of(loss: nn.Module, head: BaseDecodeHead) -> Tensor:
    """Return the class weights of a loss, float32 (C,), 1 without any."""
    weight = getattr(loss, 'class_weight', None)
    if weight is None:
        return torch.ones(head.num_classes)
    weight = torch.as_tensor(weight).float()
    if weight.shape != (head.num_classes,):
        raise ValueError(
            f'class_weight of {type(loss).__name__} has shape {tuple(weight.shape)}, but {type(head).__name__} '
            f'has num_classes={head.num_classes}. Give one weight per class.'
        )
    return weight


#: Functions of stock classes that the training of a semi-supervised method does not call.
_OWN_STEPS = {
    EncoderDecoder: (
        'loss',
        'encode_decode',
        '_decode_head_forward_train',
        '_auxiliary_head_forward_train',
    ),
    BaseDecodeHead: ('loss',),
}


def _check_steps(part: nn.Module, stock: type) -> None:
    """Reject a user's class whose own training step would be left out without a word."""
    for name in _OWN_STEPS[stock]:
        if getattr(type(part), name) is not getattr(stock, name):
            raise ValueError(
                f'{type(part).__name__} overrides {name}(), which semi-supervised methods do not call in '
                'training, so what it adds would be left out. Move it to loss_by_feat of the head, a loss in '
                'loss_decode, or extract_feat, or use ST or ST++, which train the network as it is.'
            )


def check_network(network: nn.Module) -> None:
    """Reject a network that no method can wrap.

    Raises:
        ValueError: It is not an EncoderDecoder whose decode head has two or more classes with one channel each,
            its class or that of a head has its own training step, or ``class_weight`` of a loss does not fit.
    """
    head = getattr(network, 'decode_head', None)
    if not isinstance(network, EncoderDecoder) or not isinstance(head, BaseDecodeHead):
        raise ValueError(
            f'{type(network).__name__} with {type(head).__name__} cannot be wrapped. The segmentor must be an '
            'EncoderDecoder whose decode head derives from BaseDecodeHead.'
        )
    if head.num_classes < 2:
        raise ValueError(
            f'decode_head.num_classes={head.num_classes}, but pseudo-labels need at least two classes. Set '
            'num_classes=2 and classes such as (background, object).'
        )
    if head.out_channels != head.num_classes:
        raise ValueError(
            f'decode_head.out_channels={head.out_channels} differs from num_classes={head.num_classes}, but '
            'pseudo-labels need one channel per class. Set out_channels=num_classes.'
        )
    _check_steps(network, EncoderDecoder)
    for part in (head, *auxiliary_heads(network).values()):
        if isinstance(part, BaseDecodeHead):
            _check_steps(part, BaseDecodeHead)
            for loss in _loss_modules(part):
                _weights_of(loss, part)


def trains_sigmoids(network: nn.Module) -> bool:
    """Whether all losses of the decode head train a sigmoid per class, and none the softmax."""
    return all(getattr(loss, 'use_sigmoid', False) for loss in _loss_modules(network.decode_head))


def dropout_rates(network: nn.Module) -> dict[str, float]:
    """Return the dropout rates of a network in train mode, by module, without auxiliary heads."""
    found = {}
    for name, module in network.named_modules():
        if 'auxiliary_head' in name:
            continue
        rate = getattr(module, 'p', 0) if isinstance(module, _DropoutNd) else 0
        rate = module.drop_prob if isinstance(module, DropPath) else rate
        if rate:
            found[name] = rate
    return found


def check_forwards(segmentor: dict, joint_forward: bool) -> None:
    """Reject several forward passes with reentrant checkpointing, which fails under DDP."""
    if not joint_forward and segmentor.get('backbone', {}).get('with_cp'):
        raise ValueError(
            'segmentor.backbone.with_cp=True does not work with joint_forward=False under '
            'DistributedDataParallel. Set joint_forward=True or with_cp=False.'
        )


def check_graph(output: Tensor, name: str) -> None:
    """Reject the output of a trained decode head without a graph, if gradients are enabled.

    Args:
        output (Tensor): Output of the head.
        name (str): Name of the network.
    """
    if torch.is_grad_enabled() and not output.requires_grad:
        raise ValueError(
            f'The output of the decode head of the {name} has no gradient, as with reentrant checkpointing. '
            f'Remove {name}.decode_head from activation_checkpointing.'
        )


def checkpointed_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules in MMEngine's ``activation_checkpointing``, by name."""
    # MMEngine replaces their forward method by a function that wraps it.
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module.__dict__.get('forward'), '__wrapped__')
    }


def require_gradients(modules: dict[str, nn.Module]) -> None:
    """Make checkpointed modules reject inputs that need no gradient, if their weights are trained.

    MMEngine's checkpointing is reentrant. Without a gradient of the input, it computes none for the weights.
    """

    def check(name: str, module: nn.Module, args: tuple) -> None:
        tensors = [
            one for arg in args for one in (arg if isinstance(arg, (list, tuple)) else [arg])
        ]
        fed = any(isinstance(one, Tensor) and one.requires_grad for one in tensors)
        trained = any(weight.requires_grad for weight in module.parameters())
        if torch.is_grad_enabled() and trained and not fed:
            raise ValueError(
                f'activation_checkpointing of {name} would leave its weights without gradients, because its '
                'input, such as an image, needs none. Give only later stages, such as student.backbone.layer2.'
            )

    for name, module in modules.items():
        module.register_forward_pre_hook(partial(check, name))


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode inside the ``with`` block, and restore the mode of each module after it."""
    training = [module for network in networks for module in network.modules() if module.training]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let a network's normalization use the statistics of the batch inside the ``with`` block.

    Its running statistics do not change. Dropout and other modules keep their mode.
    """
    norms = [module for module in network.modules() if hasattr(module, 'running_mean')]
    before = [(buffer, buffer.clone()) for module in norms for buffer in module.buffers()]
    modes = [module.training for module in norms]
    for module in norms:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(norms, modes, strict=True):
            module.training = mode
        for buffer, value in before:
            buffer.copy_(value)
