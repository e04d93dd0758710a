"""Stability scores of images, and selection of the more reliable half (ST++, Eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import MMLogger

from mmseg_semi.functional.agreement import stabilities
from mmseg_semi.visualization import as_pictures, save_examples, save_histogram

from .images import ImagePool
from .label_map import LabelMap
from .labeling import check_settings, prediction_settings
from .masks import Palette, classes_and_palette
from .output import OutputFolder, on_first_rank, whole_file, write_lines
from .prediction import VOID, Predictor, checkpoint_digest, repeatable
from .progress import Progress, log
from .scores import SCORES, ScoreFile, gather_parts, remove_parts, write_table

SUMMARY = 'selection.json'
RELIABLE, UNRELIABLE = 'reliable.txt', 'unreliable.txt'
_EXAMPLES = 4  # number of best and of worst images to show


def select_reliable(
    cfg: Config,
    checkpoints: Sequence[str],
    images: dict,
    out_dir: str,
    *,
    ratio: float = 0.5,
    batch_size: int = 8,
    num_workers: int = 2,
    palette: Palette | None = None,
    label_map: LabelMap | None = None,
    logger: MMLogger | str | None = None,
) -> dict:
    """Score images by the stability of their masks over K checkpoints and select the best (ST++, Eq. 4).

    s = Σ_{k<K} meanIOU(M_k, M_K), where the masks come from one forward pass at the original size. The floor(N
    · ratio) images with the highest scores are reliable; equal scores keep the order of the list. No annotation
    is opened.

    All ranks of a job call this function and share the images. The same call continues an interrupted one, also
    with another number of ranks, and gives the same result with the same ``batch_size``.

    Writes to ``out_dir``: ``scores.csv`` (id, score, reliable, in the order of the list), ``reliable.txt`` and
    ``unreliable.txt`` (ids by decreasing score, then in the order of the list), ``scores.png`` (histogram),
    ``examples.png`` (the best and the worst images with the masks of all checkpoints) and, last,
    ``selection.json``.

    Args:
        cfg (Config): See `pseudo_label`.
        checkpoints (Sequence[str]): Paths of K ≥ 2 checkpoints of one training, in order. All K networks are in
            memory at once, so each image is loaded once.
        images (dict): See `pseudo_label`.
        out_dir (str): Folder that is new, empty, or started by a call with the same arguments.
        ratio (float): Fraction of reliable images, in (0, 1).
        batch_size (int): Maximum number of images of one size per batch.
        num_workers (int): Number of loader processes per rank; 0 loads in the calling process.
        palette (Sequence, optional): RGB color per class; see `classes_and_palette`.
        label_map (LabelMap, optional): See `pseudo_label`. Masks are then compared by the student's classes,
            with one more class for ignored pixels.
        logger (MMLogger or str, optional): Logger for `print_log`. Default: the current one.

    Returns:
        dict: Content of ``selection.json``: ``settings``, ``checkpoints``, ``num_images``, ``num_reliable`` and
        ``threshold``, the lowest reliable score (None if no image is reliable).

    Raises:
        FileNotFoundError: A checkpoint, the list, the folder or an image does not exist.
        OSError: The folder cannot be written, for example because the disk is full.
        ValueError: A setting, a checkpoint or an image does not fit, or the folder holds something else.
    """
    check_settings(scales=(1.0,), batch_size=batch_size, num_workers=num_workers)
    if not 0 < ratio < 1:
        raise ValueError(f'ratio, the fraction of reliable images, must be in (0, 1), got {ratio}.')
    pool = ImagePool(cfg, images)
    pool.check_outside(out_dir)
    digests = on_first_rank(_digests, checkpoints)
    settings = {
        'checkpoints_sha256': digests,
        'ratio': float(ratio),
        **prediction_settings(cfg, pool),
    }
    if label_map is not None:
        settings['label_map'] = label_map.settings()
    folder = OutputFolder(out_dir, SUMMARY, settings, {'checkpoints': list(checkpoints)})
    summary = folder.begin()
    if summary is not None:
        log(f'{out_dir} has the scores of {len(pool)} images already.', logger)
        return summary

    known = on_first_rank(gather_parts, out_dir)
    with repeatable():
        # Build them one after the other, since they are built on the CPU.
        predictors = [Predictor(cfg, path, get_device(), label_map) for path in checkpoints]
        meta = predictors[-1].meta_of_labels
        _, palette = classes_and_palette(palette, meta, cfg, predictors[-1].num_classes)
        scores = _score(pool, predictors, folder, known, batch_size, num_workers, logger)
        order = sorted(range(len(pool)), key=lambda i: -scores[i])  # stable
        num_reliable = reliable_images(len(pool), ratio)
        on_first_rank(
            _write, folder, pool, predictors, palette, scores, order, num_reliable, num_workers
        )
    threshold = scores[order[num_reliable - 1]] if num_reliable else None
    log(f'{num_reliable} of {len(pool)} images are reliable: {folder.file(RELIABLE)}', logger)
    summary = folder.finish(
        {'num_images': len(pool), 'num_reliable': num_reliable, 'threshold': threshold}
    )
    on_first_rank(remove_parts, out_dir)
    return summary


def reliable_images(num_images: int, ratio: float) -> int:
    """Return the number of images in the first part of ST++."""
    # Floating-point products such as 0.29 · 100 are slightly too small.
    return math.floor(num_images * ratio + 1e-9)


def _digests(checkpoints: Sequence[str]) -> list[str]:
    if len(checkpoints) < 2:
        raise ValueError(
            f'{len(checkpoints)} checkpoint(s) give every image a score of 0. Give at least two of one '
            'training, the last one last.'
        )
    digests = [checkpoint_digest(path) for path in checkpoints]
    for i, digest in enumerate(digests):
        first = digests.index(digest)
        if first < i:
            raise ValueError(
                f'The checkpoints {checkpoints[first]} and {checkpoints[i]} are the same, so their masks agree '
                'everywhere. Give checkpoints of different moments of the training.'
            )
    return digests


def _score(
    pool: ImagePool,
    predictors: Sequence[Predictor],
    folder: OutputFolder,
    known: dict[str, float],
    batch_size: int,
    num_workers: int,
    logger,
) -> list[float]:
    """Return the score of every image, from all ranks and from earlier calls."""
    rank, world = get_dist_info()
    # If any score of a batch is missing, predict the whole batch, so that the results equal the first run's.
    batches = [b for b in pool.plan(batch_size) if not all(pool.ids[i] in known for i in b)]
    own, file = {}, ScoreFile(folder.path)
    total = sum(len(batch) for batch in batches)
    with Progress('scores', total, predictors) as bar:
        for positions, samples in pool.load(batches[rank::world], num_workers):
            new = dict(
                zip((pool.ids[i] for i in positions), _stability(predictors, samples), strict=True)
            )
            file.append(new)
            own.update(new)
            bar.update(len(positions))
        bar.finish('scored', logger)
    for part in all_gather_object(own):
        known = {**known, **part}
    return [known[name] for name in pool.ids]


def _stability(predictors: Sequence[Predictor], samples: Sequence[dict]) -> list[float]:
    """Compute Eq. 4 for images of one size."""
    masks = _masks(predictors, samples)
    num_classes = predictors[-1].num_classes
    finite = (masks != predictors[-1].not_finite).flatten(2).all(dim=2)
    if predictors[-1].may_ignore:
        # Ignored pixels are one more class when comparing checkpoints.
        masks, num_classes = masks.masked_fill(masks == VOID, num_classes), num_classes + 1
    scores = stabilities(masks, num_classes)
    # One transfer for both.
    *finite, scores = torch.cat([finite.double(), scores[None]]).tolist()
    for predictor, of_images in zip(predictors, finite, strict=True):
        for sample, is_finite in zip(samples, of_images, strict=True):
            if not is_finite:
                raise ValueError(
                    f'{predictor.path} predicts values that are not finite for '
                    f'{sample["data_samples"].img_path}. Use checkpoints from before the training diverged.'
                )
    return scores


def _masks(predictors: Sequence[Predictor], samples: Sequence[dict]) -> torch.Tensor:
    """(K, N, H, W) uint8."""
    images = predictors[-1].prepare(samples)
    size = samples[0]['data_samples'].ori_shape[:2]
    return torch.stack([predictor.masks(images, size) for predictor in predictors])


def _write(
    folder: OutputFolder,
    pool: ImagePool,
    predictors: Sequence[Predictor],
    palette: Palette,
    scores: list[float],
    order: list[int],
    num_reliable: int,
    num_workers: int,
) -> None:
    """Write all results except the summary."""
    best = set(order[:num_reliable])
    write_table(folder.file(SCORES), pool.ids, scores, [i in best for i in range(len(pool))])
    write_lines(folder.file(RELIABLE), (pool.ids[i] for i in order[:num_reliable]))
    write_lines(folder.file(UNRELIABLE), (pool.ids[i] for i in order[num_reliable:]))
    threshold = scores[order[num_reliable - 1]] if num_reliable else None
    with whole_file(folder.file('scores.png')) as path:
        save_histogram(
            path,
            scores,
            threshold,
            f'stability over {len(predictors)} checkpoints (at most {len(predictors) - 1})',
            f'{num_reliable} of {len(pool)} images are reliable',
        )
    number = min(_EXAMPLES, (len(order) + 1) // 2)
    shown = [*order[:number], *order[max(number, len(order) - _EXAMPLES) :]]
    pictures, masks = [], []
    for _, samples in pool.load([[i] for i in shown], num_workers):
        masks.append(list(_masks(predictors, samples)[:, 0].cpu().numpy()))
        pictures.append(_picture(samples[0]))
    with whole_file(folder.file('examples.png')) as path:
        save_examples(
            path,
            pictures,
            masks,
            palette,
            [f'checkpoint {k}' for k in range(1, len(predictors) + 1)],
            [
                f'{scores[i]:.4f}  {"reliable" if i in best else "unreliable"}  {pool.ids[i]}'
                for i in shown
            ],
        )


def _picture(sample: dict) -> np.ndarray:
    """The loaded image at its original size, uint8 RGB (H, W, 3)."""
    height, width = sample['data_samples'].ori_shape[:2]
    (image,) = as_pictures(sample['inputs'].numpy()[None])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
