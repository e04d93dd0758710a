"""Histograms of scores, and grids of the images with the best and worst scores."""

from collections.abc import Sequence

import cv2
import numpy as np

from .panels import colorize, overlay, save_panels

_LARGEST_SIDE = 320  # maximum side of an image in the grid, in pixels


def save_histogram(
    path: str, scores: Sequence[float], threshold: float | None, xlabel: str, title: str = ''
) -> None:
    """Write a histogram of scores to an image file.

    Args:
        path: Image file; its ending sets the format.
        scores: Finite numbers, at least one.
        threshold: Position of a line; None draws none.
        xlabel: Label of the axis.
        title: Title of the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.hist(scores, bins=min(50, max(10, len(scores) // 20)), color='#4878a8')
    if threshold is not None:
        axes.axvline(threshold, color='#b03030', linestyle='--', label=f'{threshold:.4g}')
        axes.legend(title='reliable from')
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=xlabel, ylabel='images', title=title)
    figure.savefig(path, dpi=120)


def save_examples(
    path: str,
    images: Sequence[np.ndarray],
    masks: Sequence[Sequence[np.ndarray]],
    palette: Sequence[Sequence[int]],
    titles: Sequence[str],
    captions: Sequence[str],
) -> None:
    """Write a grid with one row per image: the image, then overlays of its masks; large images are reduced.

    Args:
        path: Image file; its ending sets the format.
        images: uint8 RGB (H, W, 3) each.
        masks: Integer (H, W) masks of each image, one per title.
        palette: RGB per class, 0..255.
        titles: One per mask.
        captions: One per image.
    """
    rows = []
    for image, image_masks in zip(images, masks, strict=True):
        size = _small(image.shape[:2])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        row = [image]
        for mask in image_masks:
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            row.append(overlay(image, colorize(mask, palette)))
        rows.append(row)
    save_panels(path, rows, ['image', *titles], captions)


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) that an image of (height, width) gets in the grid."""
    factor = min(1.0, _LARGEST_SIDE / max(size))
    return max(1, round(size[1] * factor)), max(1, round(size[0] * factor))
