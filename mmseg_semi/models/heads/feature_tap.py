"""The features before a head's classifier, and what is built on them: a projector, a deeper classifier.

All of it hangs on the one call of ``cls_seg`` that the forward of most decode heads ends with. The method is
replaced on the instance: a bound method is copied with the head that it belongs to, so the tap of a
teacher that was deep-copied is the teacher's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import NamedTuple

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn


class TappedLogits(NamedTuple):
    """What a head returns while it is tapped.

    Attributes:
        logits (Tensor): (N, C, h, w).
        features (Tensor): (N, D, h, w), the decoder's output that the classifier reads.
    """

    logits: Tensor
    features: Tensor


def install_tap(head: BaseDecodeHead, after_dropout: bool = False) -> int:
    """Make a head able to hand out the features before its classifier, and return their channels.

    Outside of :func:`tapping` the head behaves as ever.

    Args:
        head (BaseDecodeHead): Its forward must end in one call of the stock ``cls_seg``.
        after_dropout (bool): Hand out what the classifier reads, dropout applied, instead of the decoder's
            output.

    Raises:
        ValueError: The head does not fit.
    """
    _split_classifier(head)
    if after_dropout and head.classifier_convs is not None:
        raise ValueError(
            'tap_after_dropout=True finds no dropout behind the decoder, since segmentation_head puts it '
            'behind its convolutions. Set tap_after_dropout=False or segmentation_head=None.'
        )
    head.tap_after_dropout = after_dropout
    first = head.conv_seg if head.classifier_convs is None else head.classifier_convs[0].conv
    return first.in_channels


@contextmanager
def tapping(head: BaseDecodeHead) -> Iterator[None]:
    """Let a head whose tap is installed return :class:`TappedLogits` inside the ``with`` block."""
    head.tap_open = True
    try:
        yield
    finally:
        head.tap_open = False


def tapped(output: object, head: BaseDecodeHead) -> TappedLogits:
    """The output of a tapped head's forward, checked.

    Raises:
        ValueError: The head did something else than return what its one ``cls_seg`` call gave.
    """
    # MMEngine replaces the forward, and reentrant checkpointing makes a tuple of a named one.
    if type(output) is tuple and 'forward' in vars(head):
        raise ValueError(
            f'the tapped {type(head).__name__} is under activation checkpointing, which hands on no gradient '
            'there. Take the decode heads out of activation_checkpointing.'
        )
    if not isinstance(output, TappedLogits):
        raise ValueError(
            f'the forward of {type(head).__name__} does not end in its one cls_seg call, so that its features '
            'cannot be tapped. Choose a decode head such as DepthwiseSeparableASPPHead, PSPHead, UPerHead '
            'or SegformerHead.'
        )
    return output


@MODELS.register_module()
def DeepClassifierHead(
    head: dict, num_convs: int = 3, channels: int = 256, dropout_ratio: float = 0.1
) -> BaseDecodeHead:
    """Build any decode head with convolutions between its decoder and its classifier (ESL, Sec. 4.1).

    The head keeps its class; its parameters get the prefix ``classifier_convs``, beside those that it has.

    Args:
        head (dict): Config of a decode head.
        num_convs (int): 3x3 Conv-BN-ReLU blocks, at least 1.
        channels (int): Of each.
        dropout_ratio (float): Of the dropout before the 1x1 classifier, in place of the head's own.
    """
    head = MODELS.build(head)
    _split_classifier(head)
    out_channels = head.conv_seg.out_channels
    head.classifier_convs = conv_stack(head, head.conv_seg.in_channels, num_convs, channels)
    head.conv_seg = nn.Conv2d(channels, out_channels, kernel_size=1)
    head.dropout = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else None
    return head


def conv_stack(
    head: BaseDecodeHead,
    in_channels: int,
    num_convs: int,
    channels: int,
    out_channels: int | None = None,
    last_act: bool = True,
) -> nn.Sequential:
    """3x3 Conv-BN-ReLU blocks in the manner of a head: its normalization, its activation.

    Args:
        head (BaseDecodeHead): Gives ``conv_cfg``, ``norm_cfg`` (BN, where it has none) and ``act_cfg``.
        in_channels (int): Of the first block.
        num_convs (int): Blocks, at least 1.
        channels (int): Of each but the last.
        out_channels (int, optional): Of the last. Default: ``channels``.
        last_act (bool): False ends in a plain linear convolution.

    Raises:
        ValueError: A number is below 1.
    """
    out_channels = channels if out_channels is None else out_channels
    if min(num_convs, channels, out_channels) < 1:
        raise ValueError(
            f'num_convs={num_convs}, channels={channels} and out_channels={out_channels} must be at least 1.'
        )
    blocks = []
    for index in range(num_convs):
        last = index == num_convs - 1
        plain = last and not last_act
        blocks.append(
            ConvModule(
                in_channels,
                out_channels if last else channels,
                3,
                padding=1,
                conv_cfg=head.conv_cfg,
                norm_cfg=None if plain else head.norm_cfg or {'type': 'BN'},
                act_cfg=None if plain else head.act_cfg,
            )
        )
        in_channels = channels
    return nn.Sequential(*blocks)


def _split_classifier(head: BaseDecodeHead) -> None:
    """Replace the head's ``cls_seg`` by one that can be opened, unless that is done already."""
    if hasattr(head, 'tap_open'):
        return
    if not isinstance(head, BaseDecodeHead) or type(head).cls_seg is not BaseDecodeHead.cls_seg:
        raise ValueError(
            f'{type(head).__name__} has a classifier of its own, so that the features before it cannot be '
            'tapped. Choose a decode head such as DepthwiseSeparableASPPHead, PSPHead, UPerHead or '
            'SegformerHead.'
        )
    if not isinstance(getattr(head, 'conv_seg', None), nn.Conv2d):
        raise ValueError(
            f'{type(head).__name__} has no convolution conv_seg as its classifier, so that the features '
            'before it cannot be tapped. Choose a decode head such as DepthwiseSeparableASPPHead, PSPHead, '
            'UPerHead or SegformerHead.'
        )
    head.classifier_convs = None
    head.tap_open = head.tap_after_dropout = False
    head.cls_seg = MethodType(_cls_seg, head)


def _cls_seg(head: BaseDecodeHead, feat: Tensor) -> Tensor | TappedLogits:
    """BaseDecodeHead.cls_seg, with convolutions before it and a tap."""
    features = feat
    if head.classifier_convs is not None:
        feat = head.classifier_convs(feat)
    if head.dropout is not None:
        feat = head.dropout(feat)
    if head.tap_after_dropout:
        features = feat
    logits = head.conv_seg(feat)
    return TappedLogits(logits, features) if head.tap_open else logits
