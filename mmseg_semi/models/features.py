"""Operations on the features of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..functional.perturbation import sample_channel_masks, scale_channels


def map_features(function: Callable, features: Tensor | Sequence, *others: Sequence) -> list:
    """Apply a function to every tensor of the stages. A stage may be a pair (map, class token).

    Args:
        function: Called with one tensor of ``features`` and one of each of ``others``.
        features: Stages; a stage is a tensor or a sequence of tensors.
        *others: Values with the same structure, or one value for all tensors of a stage.
    """
    return [
        function(stage, *rest)
        if isinstance(stage, Tensor)
        else [function(tensor, *rest) for tensor in stage]
        for stage, *rest in zip(features, *others, strict=True)
    ]


def split_features(features: Sequence, number: int) -> tuple[list, list]:
    """Split the stages into the first ``number`` images of a batch and the others."""
    first = map_features(lambda one: one[:number], features)
    return first, map_features(lambda one: one[number:], features)


def channel_widths(features: Sequence) -> list[int]:
    """Return the channels of each stage (N, C, h, w), or of both parts of a pair (map, class token).

    Raises:
        ValueError: A stage has another format, such as tokens (N, L, C).
    """
    widths = []
    for index, stage in enumerate(features):
        tensors = [stage] if isinstance(stage, Tensor) else list(stage)
        shapes = [tuple(x.shape) for x in tensors if isinstance(x, Tensor)]
        maps = [len(shape) for shape in shapes] in ([4], [4, 2])
        if not maps or len({shape[:2] for shape in shapes}) > 1:
            raise ValueError(
                f'stage {index} of the features has shapes {shapes or type(stage).__name__}, but channels can '
                'only be dropped from maps (N, C, h, w), alone or with a class token (N, C). Let the backbone '
                "return maps (mmpretrain: out_type='featmap')."
            )
        widths.append(shapes[0][1])
    return widths


def append_dropped(features: Sequence, number: int, ratio: float) -> list:
    """Append copies of the last ``number`` images with dropped channels to the stages of a batch."""
    stage = features[0]
    device = (stage if isinstance(stage, Tensor) else stage[0]).device
    masks = sample_channel_masks(number, channel_widths(features), ratio, device=device)
    return map_features(
        lambda one, mask: torch.cat([one, scale_channels(one[-number:], mask)]), features, masks
    )


def last_decoded_stage(head: BaseDecodeHead) -> tuple[int, int]:
    """Return index and channels of the last encoder stage that a decode head reads.

    Raises:
        ValueError: The head concatenates several stages.
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
    """Return the map (N, D, h, w) of one encoder stage, without a class token.

    Args:
        encoded (Sequence): The stages.
        index (int): Index of the stage.
        channels (int): Expected number of channels D.

    Raises:
        ValueError: The stage does not exist or has another number of channels.
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
    """Convert half precision to float32 for norms, sums and softmax; keep float32 and float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
