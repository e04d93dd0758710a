"""Draw a grid of images with titles and captions, without resampling and without a display."""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

IGNORE_COLOR = (255, 255, 255)
_BACKGROUND, _INK, _EMPTY = (250, 250, 250), (30, 30, 30), (225, 225, 225)
_GAP, _TEXT, _FONT_SIZE = 6, 20, 13
_LEAST_SIDE = 160  # smaller images are enlarged by an integer factor to about this size


def as_pictures(images: np.ndarray, bgr: bool = True) -> np.ndarray:
    """Convert images of any number of channels and bits.

    One or two channels become the first one in gray, and more than three the first three. Values above 255 are
    scaled by the largest value.

    Args:
        images: (N, C, H, W), of any type.
        bgr: Whether the first three channels are blue, green and red.

    Returns:
        uint8 RGB (N, H, W, 3).
    """
    channels = images.shape[1]
    images = np.repeat(images[:, :1], 3, axis=1) if channels < 3 else images[:, :3]
    images = np.moveaxis(images[:, ::-1] if bgr else images, 1, -1).astype(np.float32)
    images = images * (255 / max(255, images.max(initial=0)))
    return np.ascontiguousarray(images.round().clip(0, 255).astype(np.uint8))


def colorize(
    label: np.ndarray, palette: Sequence[Sequence[int]], ignore_index: int = 255
) -> np.ndarray:
    """Color a label map.

    Args:
        label: Integer (H, W); values outside the palette are drawn as void.
        palette: RGB per class, 0..255.
        ignore_index: Void, drawn white.

    Returns:
        uint8 RGB (H, W, 3).
    """
    colors = np.array([*palette, IGNORE_COLOR], dtype=np.uint8)
    label = np.asarray(label, dtype=np.int64)
    void = (label == ignore_index) | (label < 0) | (label >= len(palette))
    return colors[np.where(void, len(palette), label)]


def heatmap(map01: np.ndarray) -> np.ndarray:
    """Color a map of values in [0, 1] (viridis, dark = 0); other values are clipped, NaN is 0.

    Args:
        map01: Float (H, W).

    Returns:
        uint8 RGB (H, W, 3).
    """
    levels = np.nan_to_num(np.asarray(map01, dtype=np.float32)).clip(0, 1) * 255
    return cv2.applyColorMap(np.rint(levels).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[
        ..., ::-1
    ].copy()


def overlay(image: np.ndarray, colors: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Blend ``colors`` over ``image``, both uint8 RGB (H, W, 3), with ``opacity`` in [0, 1]."""
    return cv2.addWeighted(image, 1 - opacity, colors, opacity, 0)


def save_panels(
    path: str,
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str],
    captions: Sequence[str] | None = None,
) -> None:
    """Write a grid of images to a file; missing folders are created.

    Images are not resampled. If all are small, they are enlarged by a common integer factor.

    Args:
        path: Image file; its ending sets the format.
        rows: Rows with one image per title, uint8 RGB (H, W, 3) of any size, or None for an empty cell.
        titles: One per column.
        captions: One per row, below it.

    Raises:
        ValueError: Rows, titles and captions do not match, or an image is not uint8 RGB.
    """
    _check(path, rows, titles, captions)
    sizes = [picture.shape[:2] for row in rows for picture in row if picture is not None]
    height, width = np.max(sizes or [(1, 1)], axis=0)
    factor = max(1, round(_LEAST_SIDE / max(height, width)))
    height, width = int(height) * factor, int(width) * factor
    row_height = height + _GAP + (_TEXT if captions is not None else 0)
    canvas = Image.new(
        'RGB',
        (_GAP + len(titles) * (width + _GAP), _GAP + _TEXT + len(rows) * row_height),
        _BACKGROUND,
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE)
    for column, title in enumerate(titles):
        left = _GAP + column * (width + _GAP)
        draw.text((left, _GAP), _fit(title, width, font), fill=_INK, font=font)
    for number, row in enumerate(rows):
        top = _GAP + _TEXT + number * row_height
        for column, picture in enumerate(row):
            left = _GAP + column * (width + _GAP)
            if picture is None:
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_EMPTY)
                continue
            enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
            canvas.paste(Image.fromarray(enlarged), (left, top))
        if captions is not None:
            text = _fit(captions[number], canvas.width - 2 * _GAP, font)
            draw.text((_GAP, top + height + 2), text, fill=_INK, font=font)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    canvas.save(path)


def _check(path, rows, titles, captions) -> None:
    for number, row in enumerate(rows):
        if len(row) != len(titles):
            raise ValueError(
                f'Row {number} of {path} has {len(row)} pictures for {len(titles)} titles. '
                'Give one per title, or None.'
            )
        for title, picture in zip(titles, row, strict=True):
            if picture is None:
                continue
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(
                    f'Picture {title!r} in row {number} of {path} is {picture.dtype} '
                    f'{picture.shape}. Give uint8 RGB (H, W, 3).'
                )
    if captions is not None and len(captions) != len(rows):
        raise ValueError(
            f'{path} has {len(captions)} captions for {len(rows)} rows. Give one per row.'
        )


def _fit(text: str, width: int, font) -> str:
    """Return ``text``, or as much of its end as fits: the end of a path is the most informative part."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength('...' + text) > width:
        text = text[1:]
    return '...' + text
