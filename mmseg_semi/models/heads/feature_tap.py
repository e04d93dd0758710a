"""Access to the features before a head's classifier, for a projector or a deeper classifier.

The forward method of most decode heads ends with one call of ``cls_seg``. This module replaces ``cls_seg`` of
the instance by a bound method. A deep copy of a head also copies the bound method, so the tap of a copied
teacher belongs to the teacher.
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
    """Output of a head inside :func:`tapping`.

    Attributes:
        logits (Tensor): (N, C, h, w).
        features (Tensor): (N, D, h, w), the input of the classifier.
    """

    logits: Tensor
    features: Tensor


def install_tap(head: BaseDecodeHead, after_dropout: bool = False) -> int:
    """Let a head return the features before its classifier, and return the number of their channels.

    Outside of :func:`tapping` the head does not change.

    Args:
        head (BaseDecodeHead): Decode head whose forward method ends with one call of the stock ``cls_seg``.
        after_dropout (bool): Return the features after dropout instead of before it.

    Raises:
        ValueError: The head is not supported.
    """
    _split_classifier(head)
    if after_dropout and head.classifier_convs is not None:
        raise ValueError(
            'tap_after_dropout=True does not work with segmentation_head, which moves the dropout after its '
            'convolutions. Set tap_after_dropout=False or segmentation_head=None.'
        )
    head.tap_after_dropout = after_dropout
    first = head.conv_seg if head.classifier_convs is None else head.classifier_convs[0].conv
    return first.in_channels


@contextmanager
def tapping(head: BaseDecodeHead) -> Iterator[None]:
    """Let a head with an installed tap return :class:`TappedLogits` inside the ``with`` block."""
    head.tap_open = True
    try:
        yield
    finally:
        head.tap_open = False


def tapped(output: object, head: BaseDecodeHead) -> TappedLogits:
    """Check the output of a tapped head.

    Raises:
        ValueError: The head does not return the result of one ``cls_seg`` call.
    """
    # With reentrant checkpointing, MMEngine replaces forward, and the named tuple becomes a tuple.
    if type(output) is tuple and 'forward' in vars(head):
        raise ValueError(
            f'the tapped {type(head).__name__} is under activation checkpointing, which stops its gradient. '
            'Remove the decode heads from activation_checkpointing.'
        )
    if not isinstance(output, TappedLogits):
        raise ValueError(
            f'the forward method of {type(head).__name__} does not end in its one cls_seg call, so that its '
            'features cannot be tapped. Choose a decode head such as DepthwiseSeparableASPPHead, PSPHead, '
            'UPerHead or SegformerHead.'
        )
    return output


@MODELS.register_module()
def DeepClassifierHead(
    head: dict, num_convs: int = 3, channels: int = 256, dropout_ratio: float = 0.1
) -> BaseDecodeHead:
    """Build any decode head with convolutions between its decoder and its classifier (ESL, Sec. 4.1).

    The class of the head does not change. The additional parameters have the prefix ``classifier_convs``.

    Args:
        head (dict): Config of a decode head.
        num_convs (int): Number of 3x3 Conv-BN-ReLU blocks, at least 1.
        channels (int): Channels of each block.
        dropout_ratio (float): Dropout before the 1x1 classifier. It replaces the dropout of the head.
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
    """Build 3x3 Conv-BN-ReLU blocks with the normalization and activation of a head.

    Args:
        head (BaseDecodeHead): Defines ``conv_cfg``, ``norm_cfg`` (default: BN) and ``act_cfg``.
        in_channels (int): Input channels of the first block.
        num_convs (int): Number of blocks, at least 1.
        channels (int): Channels of each block but the last.
        out_channels (int, optional): Channels of the last block. Default: ``channels``.
        last_act (bool): False makes the last block a plain convolution.

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
    """Replace the head's ``cls_seg`` by one with a tap, once."""
    if hasattr(head, 'tap_open'):
        return
    if not isinstance(head, BaseDecodeHead) or type(head).cls_seg is not BaseDecodeHead.cls_seg:
        raise ValueError(
            f'{type(head).__name__} overrides the classifier, so that the features before it cannot be '
            'tapped. Choose a decode head such as DepthwiseSeparableASPPHead, PSPHead, UPerHead or '
            'SegformerHead.'
        )
    if not isinstance(getattr(head, 'conv_seg', None), nn.Conv2d):
        raise ValueError(
            f'The classifier of {type(head).__name__} is not a convolution conv_seg, so that the features '
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
