"""Pseudo-labels of images by one network, with test-time augmentation over scales and flips."""

from __future__ import annotations

import logging
import os.path
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor

from mmseg_semi.datasets.files import Folders
from mmseg_semi.datasets.pseudo_labeled import LABELS_SUMMARY, MASK_SUFFIX
from mmseg_semi.functional.top_k import compress_probs

from .images import ImagePool, prediction_pipeline
from .label_map import LabelMap
from .masks import MaskWriter, Palette, classes_and_palette, read_mask
from .output import OutputFolder, make_folders, on_first_rank
from .prediction import Predictor, checkpoint_digest, repeatable
from .progress import Progress, log

SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)
_FEW = 1e-4
"""Share of the labeled pixels below which a class is reported as missing."""
_SHOWN = 8
"""Number of classes that a message names."""


def pseudo_label(
    cfg: Config,
    checkpoint: str,
    images: dict,
    out_dir: str,
    *,
    subset: Iterable[str] | None = None,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    threshold: float = 0.0,
    soft: int | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    palette: Palette | None = None,
    label_map: LabelMap | None = None,
    logger: MMLogger | str | None = None,
) -> dict:
    """Label images and write ``out_dir/<id>.png``, class indices in a palette PNG (ST++, Algorithm 1).

    The softmax maps of ten views (five scales, each also flipped) are resized to the original image and summed.
    The class with the largest sum is the label of a pixel. Without a threshold or a label map no pixel is void.
    The paper says "five scales and horizontal flipping"; the values are from its code. ``scales=(1.0,),
    flip=False`` is the network's ordinary prediction.

    All ranks of a job call this function and share the images. The same call continues an interrupted one, also
    with another number of ranks, and keeps existing masks. With the same ``batch_size`` the result is bitwise
    identical.

    Args:
        cfg (Config): Config with ``model`` (stock, or a method of this package: its ``predict_on`` network) and
            ``test_dataloader``, whose pipeline prepares the images.
        checkpoint (str): Path of the checkpoint.
        images (dict): Config of an ``UnlabeledDataset``, or of a ``ShapesDataset`` without labels.
        out_dir (str): Folder that is new, empty, or started by a call with the same arguments.
        subset (Iterable[str], optional): Ids (``image_ids``) of the images to label; None labels all.
        scales (Sequence[float]): Scales of the views, relative to the output of the test pipeline.
        flip (bool): Whether to also use each view flipped horizontally.
        threshold (float): Mean softmax, in [0, 1), below which a pixel is void; ST++ uses none.
        soft (int, optional): Also write ``<id>.soft`` with the ``soft`` most probable classes of every pixel
            and their mean softmax in 8 bits (:mod:`mmseg_semi.datasets.soft_labels`); ``pseudo_labels.json``
            then has the number as ``soft``.
        batch_size (int): Maximum number of images of one size that are loaded and counted together.
        num_workers (int): Number of loader processes per rank; 0 loads in the calling process.
        palette (Sequence, optional): RGB color per class; see `classes_and_palette`.
        label_map (LabelMap, optional): Maps the network's classes to the classes of a student, which the masks
            then use. Probabilities of classes that map to one class are added up. A pixel is void if the
            ignored classes have the largest sum.
        logger (MMLogger or str, optional): Logger for `print_log`. Default: the current one.

    Returns:
        dict: Content of ``out_dir/pseudo_labels.json``, which marks the folder as finished: ``settings``,
        ``checkpoint``, ``num_images``, ``drawn_on`` (the view of an image with an EXIF orientation that its
        mask belongs to, see ``LoadAnnotations``), ``classes`` and ``pixels`` per class.

    Raises:
        FileNotFoundError: The checkpoint, the list, the folder or an image does not exist.
        OSError: The folder cannot be written, for example because the disk is full.
        ValueError: A setting, the checkpoint or an image does not fit, or the folder holds something else.
    """
    check_settings(scales=scales, batch_size=batch_size, num_workers=num_workers)
    if not 0 <= threshold < 1:
        raise ValueError(
            f'threshold must be in [0, 1), got {threshold}. Set it to 0 to label every pixel, or to 0.5 (ST++).'
        )
    if soft is not None and (not isinstance(soft, int) or soft < 1):
        raise ValueError(
            f'soft, the number of stored classes per pixel, must be at least 1, got {soft!r}.'
        )
    pool = ImagePool(cfg, images, subset)
    pool.check_outside(out_dir)
    settings = {
        'checkpoint_sha256': on_first_rank(checkpoint_digest, checkpoint),
        'scales': [float(scale) for scale in scales],
        'flip': bool(flip),
        **prediction_settings(cfg, pool),
    }
    if threshold:
        settings['threshold'] = float(threshold)
    if soft:
        settings['soft'] = soft
    if label_map is not None:
        settings['label_map'] = label_map.settings()
    folder = OutputFolder(out_dir, LABELS_SUMMARY, settings, {'checkpoint': checkpoint})
    summary = folder.begin()
    if summary is not None:
        log(f'{out_dir} has the pseudo-labels of {len(pool)} images already.', logger)
        return summary

    paths = [folder.file(name + MASK_SUFFIX) for name in pool.ids]
    done = on_first_rank(_existing, paths)
    with repeatable():
        predictor = Predictor(cfg, checkpoint, get_device(), label_map)
        if label_map is not None:
            log(predictor.told(), logger)
        classes, palette = classes_and_palette(
            palette, predictor.meta_of_labels, cfg, predictor.num_classes
        )
        if soft is not None and soft > predictor.num_classes:
            raise ValueError(
                f'soft={soft} is above the number of classes, {predictor.num_classes}. Set it to at most '
                f'{predictor.num_classes}.'
            )
        views = _Views(tuple(scales), flip, threshold, soft)
        pixels = _label(
            pool, predictor, paths, done, views, batch_size, num_workers, palette, logger
        )
    _report_shares(classes, pixels, logger)
    summary = {
        'num_images': len(pool),
        'drawn_on': 'displayed' if pool.displays else 'stored',
        'classes': classes,
        'pixels': pixels,
    }
    return folder.finish({**summary, 'soft': soft} if soft else summary)


class _Views(NamedTuple):
    """The test-time augmentation, and which outputs to keep."""

    scales: Sequence[float]
    flip: bool
    threshold: float
    soft: int | None

    def of(self, predictor: Predictor, samples: Sequence[dict]) -> tuple[Tensor, Tensor | None]:
        """Return masks (N, H, W) of samples of one size, and their soft labels (N, 2 k, H, W)."""
        size = samples[0]['data_samples'].ori_shape[:2]
        images = predictor.prepare(samples)
        if self.soft is None:
            return predictor.masks(images, size, self.scales, self.flip, self.threshold), None
        probs = predictor.probs(images, size, self.scales, self.flip)
        soft = compress_probs(probs[:, : predictor.num_classes], self.soft)
        return predictor.labels(probs, self.threshold), soft


def _label(
    pool: ImagePool,
    predictor: Predictor,
    paths: list[str],
    done: list[bool],
    views: _Views,
    batch_size: int,
    num_workers: int,
    palette: Palette,
    logger,
) -> list[int]:
    """Write missing masks; return the pixels of each class in all masks of all ranks."""
    rank, world = get_dist_info()
    # If any mask of a batch is missing, predict the whole batch, so that the results equal the first run's.
    batches = [b for b in pool.plan(batch_size) if not all(done[i] for i in b)]
    own = batches[rank::world]
    make_folders(paths[i] for batch in own for i in batch)
    total = sum(len(batch) for batch in batches)
    bar = Progress('pseudo-labels', total, [predictor])
    void = views.threshold > 0 or predictor.may_ignore
    with MaskWriter(palette, predictor.path, void) as writer, bar:
        for positions, samples in pool.load(own, num_workers):
            masks, soft = views.of(predictor, samples)
            # A run can be interrupted between two masks of a batch; existing masks are kept.
            missing = [k for k, i in enumerate(positions) if not done[i]]
            soft = None if soft is None else soft[missing]
            writer.write([paths[positions[k]] for k in missing], masks[missing], soft)
            bar.update(len(positions))
    kept = [i for i in range(len(paths)) if done[i]]
    for i in kept[rank::world]:
        writer.count(read_mask(paths[i]), paths[i])
    bar.finish('pseudo-labeled', logger)
    return [int(n) for n in sum(all_gather_object(writer.pixels))]


def _report_shares(classes: Sequence[str], pixels: Sequence[int], logger) -> None:
    """Log the share of each class in the pseudo-labels, and warn of classes that are missing."""
    total = sum(pixels)
    if not total:
        log(
            'All pixels of the pseudo-labels are void. Lower the threshold.',
            logger,
            logging.WARNING,
        )
        return
    shares = {name: count / total for name, count in zip(classes, pixels, strict=True)}
    largest = sorted(shares, key=shares.get, reverse=True)
    said = ', '.join(f'{name} {100 * shares[name]:.2f} %' for name in largest[:_SHOWN])
    more = len(shares) - _SHOWN
    log(f'shares of the pseudo-labels: {said}{f" and {more} more" if more > 0 else ""}', logger)
    missing = [name for name in shares if shares[name] < _FEW]
    if missing:
        others = f' and {len(missing) - _SHOWN} more' if len(missing) > _SHOWN else ''
        log(
            f'{len(missing)} of {len(shares)} classes have fewer than {100 * _FEW:g} % of the pixels of the '
            f'pseudo-labels: {", ".join(missing[:_SHOWN])}{others}. A student learns from these pseudo-labels '
            'that the unlabeled images do not contain them. If they do, train the network that predicts until '
            'its validation finds these classes.',
            logger,
            logging.WARNING,
        )


def prediction_settings(cfg: Config, pool: ImagePool) -> dict:
    """Return the settings that change a prediction besides weights and views, for `OutputFolder`."""
    inner = cfg.model.get('segmentor') or cfg.model
    settings = {
        'images': on_first_rank(pool.fingerprint),
        'pipeline': prediction_pipeline(cfg),
        'test_cfg': inner.get('test_cfg'),
    }
    if inner is not cfg.model:
        settings['semi_test_cfg'] = cfg.model.get('semi_test_cfg')
    return settings


def check_settings(*, scales: Sequence[float], batch_size: int, num_workers: int) -> None:
    """Raise ValueError if a setting is out of range."""
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f'scales={list(scales)} must be one or more numbers above 0.')
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} must be at least 1.')
    if num_workers < 0:
        raise ValueError(f'num_workers={num_workers} must be at least 0.')


def _existing(paths: list[str]) -> list[bool]:
    folders = Folders()
    # After a power failure, a renamed file can be empty.
    return [path in folders and os.path.getsize(path) > 0 for path in paths]
