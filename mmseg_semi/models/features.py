"""The encoder's features of a batch, and how to do one thing to all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..functional.perturbation import sample_channel_masks, scale_channels


def map_features(function: Callable, features: Tensor | Sequence, *others: Sequence) -> list:
    """Apply a function to every tensor of the stages, some of which may be pairs (map, class token).

    Args:
        function: of one tensor of each of the arguments that follow.
        features: stages; a stage is a tensor or a sequence of tensors.
        *others: likewise, or one thing for all the tensors of a stage.
    """
    return [
        function(stage, *rest)
        if isinstance(stage, Tensor)
        else [function(tensor, *rest) for tensor in stage]
        for stage, *rest in zip(features, *others, strict=True)
    ]


def split_features(features: Sequence, number: int) -> tuple[list, list]:
    """The stages of the first ``number`` images of a batch, and those of the others."""
    first = map_features(lambda one: one[:number], features)
    return first, map_features(lambda one: one[number:], features)


def channel_widths(features: Sequence) -> list[int]:
    """Channels of each stage (N, C, h, w); of a pair (map, class token), those of both.

    Raises:
        ValueError: a stage is something else, such as tokens (N, L, C).
    """
    widths = []
    for index, stage in enumerate(features):
        tensors = [stage] if isinstance(stage, Tensor) else list(stage)
        shapes = [tuple(x.shape) for x in tensors if isinstance(x, Tensor)]
        maps = [len(shape) for shape in shapes] in ([4], [4, 2])
        if not maps or len({shape[:2] for shape in shapes}) > 1:
            raise ValueError(
                f'stage {index} of the features has shapes {shapes or type(stage).__name__}, but channels are '
                'dropped from maps (N, C, h, w), alone or with a class token (N, C). Have the backbone '
                "return maps (mmpretrain: out_type='featmap')."
            )
        widths.append(shapes[0][1])
    return widths


def append_dropped(features: Sequence, number: int, ratio: float) -> list:
    """The stages of a batch, and behind them its last ``number`` images with channels dropped."""
    stage = features[0]
    device = (stage if isinstance(stage, Tensor) else stage[0]).device
    masks = sample_channel_masks(number, channel_widths(features), ratio, device=device)
    return map_features(
        lambda one, mask: torch.cat([one, scale_channels(one[-number:], mask)]), features, masks
    )


def last_decoded_stage(head: BaseDecodeHead) -> tuple[int, int]:
    """Index and channels of the last encoder stage that a decode head reads.

    Raises:
        ValueError: It reads several stages as one.
    """
    if head.input_transform == 'resize_concat':
        raise ValueError(
            f'{type(head).__name__} reads the encoder stages {head.in_index} as one. Set '
            'semi_train_cfg.encoder_index and encoder_channels to one of them and its channels.'
        )
    if isinstance(head.in_index, (list, tuple)):
        return head.in_index[-1], head.in_channels[-1]
    return head.in_index, head.in_channels


def stage_map(encoded: Sequence, index: int, channels: int) -> Tensor:
    """The map (N, D, h, w) of one encoder stage, without the class token that it may come with.

    Args:
        encoded (Sequence): The stages.
        index (int): Of the stage.
        channels (int): D that the stage must have.

    Raises:
        ValueError: There is no such stage, or it has other channels.
    """
    if not -len(encoded) <= index < len(encoded):
        raise ValueError(
            f'semi_train_cfg.encoder_index={index} is none of the {len(encoded)} stages of the encoder. Set it '
            f'to one of 0 to {len(encoded) - 1}.'
        )
    stage = encoded[index]
    if not isinstance(stage, Tensor):
        stage = stage[0]
    if stage.shape[1] != channels:
        raise ValueError(
            f'Stage {index} of the encoder has {stage.shape[1]} channels, not {channels}. Set '
            'semi_train_cfg.encoder_index to a stage and encoder_channels to its channels.'
        )
    return stage


def at_least_float(x: Tensor) -> Tensor:
    """Half precision as float32, which norms, sums and softmaxes need; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
