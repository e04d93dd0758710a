"""Progress of a long pass over images: a bar while it runs, one line at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from mmengine.dist import all_gather_object, get_dist_info, is_main_process
from mmengine.logging import MMLogger, print_log
from tqdm import tqdm

from .prediction import Predictor


def log(message: str, logger: MMLogger | str | None = None, level: int = logging.INFO) -> None:
    """Log a message once, on rank 0."""
    if is_main_process():
        print_log(message, logger='current' if logger is None else logger, level=level)


class Progress:
    """A progress bar on rank 0 for the images of all ranks, extrapolated from the images of rank 0.

    Args:
        what: Noun for the bar.
        total: Number of images of all ranks.
        predictors: Predictors whose time within the network is measured.
    """

    def __init__(self, what: str, total: int, predictors: Sequence[Predictor]) -> None:
        rank, self._world = get_dist_info()
        self._total, self._predictors = total, predictors
        self._own = 0
        self._start = time.perf_counter()
        self._bar = tqdm(total=total, desc=what, unit='img', disable=rank != 0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def update(self, images: int) -> None:
        """Count images that this rank has finished."""
        self._own += images
        self._bar.update(min(images * self._world, self._total - self._bar.n))

    def finish(self, done: str, logger=None) -> dict[str, float]:
        """Log images, images per second and the share of time outside of the network; every rank calls it.

        Args:
            done: What was done to the images, such as 'pseudo-labeled'.
            logger: Logger for the line.

        Returns:
            dict[str, float]: ``images``, ``seconds``, and ``outside``, the fraction of time that the ranks
            spent outside of the network, in [0, 1].
        """
        inside = sum(predictor.in_network.seconds() for predictor in self._predictors)
        parts = all_gather_object((self._own, time.perf_counter() - self._start, inside))
        images, seconds = sum(part[0] for part in parts), max(part[1] for part in parts)
        outside = 1 - sum(part[2] for part in parts) / (len(parts) * seconds)
        self._bar.close()
        if images:
            log(
                f'{images} images {done} in {seconds:.1f} s: {images / seconds:.1f} images per second, '
                f'{outside:.0%} of the time outside of the network.',
                logger,
            )
        return dict(images=images, seconds=seconds, outside=outside)
