"""Evaluate pseudo-labels against ground truth: class distribution and precision by confidence."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import MMLogger
from mmseg.registry import MODELS

from mmseg_semi.models.segmentors import SemiSegmentor

from .images import ImagePool
from .labeling import check_settings
from .masks import classes_and_palette
from .output import on_first_rank
from .prediction import VOID, Predictor, repeatable
from .progress import Progress
from .truth import TruthReading, check_true_masks, read_true_mask

#: Confidence thresholds of the pseudo-labels.
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def network_names(cfg: Config) -> tuple[str, ...]:
    """Return the names of the networks of a config's method; for a plain network ``('',)``.

    Args:
        cfg (Config): Config with ``model``.
    """
    kind = cfg.model.type
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return kind.networks if isinstance(kind, type) and issubclass(kind, SemiSegmentor) else ('',)


def measure_quality(
    cfg: Config,
    checkpoint: str,
    images: dict,
    truth: str,
    *,
    network: str = '',
    thresholds: Sequence[float] = THRESHOLDS,
    measure_batch_norm: bool = False,
    truth_suffix: str = '.png',
    batch_size: int = 8,
    num_workers: int = 2,
    logger: MMLogger | str | None = None,
) -> dict:
    """Compare the pseudo-labels of whole, unaugmented images with their true masks.

    In training, pseudo-labels come from weakly augmented crops: from the same network, but not for the same
    pixels. All ranks of a job call this function and share the images.

    Args:
        cfg (Config): See `pseudo_label`.
        checkpoint (str): Path of the checkpoint.
        images (dict): Config of a dataset of images.
        truth (str): Folder of true masks, see `report_truth`.
        network (str): Name of the method's network that labels; '' for the one that predicts.
        thresholds (Sequence[float]): Ascending confidences; pixels below the first are not counted.
        measure_batch_norm (bool): Whether to first measure the batch norm statistics on these images. If that
            changes the result much, the network was trained with statistics of other images, such as strongly
            augmented ones.
        truth_suffix (str): Ending of the true masks.
        batch_size (int): Maximum number of images of one size per batch.
        num_workers (int): Number of loader processes per rank; 0 loads in the calling process.
        logger (MMLogger or str, optional): Logger for `print_log`. Default: the current one.

    Returns:
        dict: ``classes``; ``truth``: share of each class in the true masks; ``thresholds``: for each one
        ``threshold``, ``kept`` (share of all pixels), ``precision``, and by class ``share``,
        ``class_precision``, ``class_recall`` (of all its true pixels) and ``IoU`` (of the kept pixels). All
        in percent, without void; None for classes that do not occur.

    Raises:
        FileNotFoundError: A true mask does not exist.
        ValueError: A threshold, the network's name or a true mask does not fit, the network predicts NaN, or
            it has no batch norm to measure.
    """
    check_settings(scales=(1.0,), batch_size=batch_size, num_workers=num_workers)
    edges = np.asarray(thresholds, dtype=np.float64)
    if (
        edges.ndim != 1
        or not len(edges)
        or (np.diff(edges) <= 0).any()
        or not 0 <= edges[0] <= edges[-1] < 1
    ):
        raise ValueError(
            f'thresholds={list(thresholds)} must be ascending confidences of at least 0 and below 1.'
        )
    cfg = copy.deepcopy(cfg)
    if network:
        if network not in network_names(cfg):
            raise ValueError(
                f'network={network!r} is none of {cfg.model.type}. Choose one of '
                f'{", ".join(filter(None, network_names(cfg))) or "none, it has a single one"}.'
            )
        cfg.model.semi_test_cfg = dict(cfg.model.get('semi_test_cfg') or {}, predict_on=network)
    pool = ImagePool(cfg, images)
    paths = [osp.join(truth, pool.true_mask_name(i, truth_suffix)) for i in range(len(pool))]
    on_first_rank(check_true_masks, paths)
    reading = TruthReading.of_test(cfg)
    rank, world = get_dist_info()
    batches = pool.plan(batch_size)
    with repeatable():
        predictor = Predictor(cfg, checkpoint, get_device())
        number = predictor.num_classes
        if measure_batch_norm:  # by every rank
            # Pooled features of one image have no variance.
            several = [batch for batch in batches if len(batch) > 1]
            if not several:
                raise ValueError(
                    f'With batch_size={batch_size}, no batch has 2 images of the same size. The statistics of '
                    'batch norm need 2. Set a larger batch size.'
                )
            with predictor.measuring_batch_norm():
                for _, samples in pool.load(several, num_workers):
                    predictor.masks(predictor.prepare(samples), _size(samples))
        counts = np.zeros((len(edges) + 1) * number * number, dtype=np.int64)
        with Progress('true masks', len(pool), [predictor]) as bar:
            for positions, samples in pool.load(batches[rank::world], num_workers):
                confidence, label = predictor.confident_labels(
                    predictor.prepare(samples), _size(samples)
                )
                finite = confidence.isfinite().flatten(1).all(dim=1).tolist()
                if not all(finite):
                    image = pool.info(positions[finite.index(False)])['img_path']
                    raise ValueError(
                        f'{checkpoint} predicts values that are not finite for {image}. Use a checkpoint from '
                        'before the training diverged.'
                    )
                above = torch.bucketize(
                    confidence.double().cpu(), torch.from_numpy(edges), right=True
                ).numpy()
                label = label.cpu().numpy()
                for row, i in enumerate(positions):
                    image = pool.info(i)['img_path']
                    void = predictor.ignore_index
                    true = read_true_mask(paths[i], image, label[row], number, reading, void)
                    valid = true != VOID
                    key = (above[row] * number + true) * number + label[row]
                    counts += np.bincount(key[valid], minlength=len(counts))
                bar.update(len(positions))
            bar.finish('compared with true masks', logger)
    counts = sum(all_gather_object(counts)).reshape(-1, number, number)
    names, _ = classes_and_palette(None, predictor.dataset_meta, cfg, number)
    return {'classes': names, **_summary(counts, [float(edge) for edge in edges])}


def _size(samples: list[dict]) -> tuple[int, int]:
    return samples[0]['data_samples'].ori_shape[:2]


def _summary(counts: np.ndarray, thresholds: list[float]) -> dict:
    """Summarize ``counts`` (confidence interval, true class, label) in percent."""
    total = counts.sum(axis=0)
    report = {'truth': _percents(total.sum(axis=1), total.sum()), 'thresholds': []}
    for i, threshold in enumerate(thresholds):
        kept = counts[i + 1 :].sum(axis=0)  # interval 0 is below the first threshold
        right, labels, true = kept.diagonal(), kept.sum(axis=0), total.sum(axis=1)
        report['thresholds'].append(
            {
                'threshold': threshold,
                'kept': _percents(kept.sum(), total.sum()),
                'precision': _percents(right.sum(), kept.sum()),
                'share': _percents(labels, kept.sum()),
                'class_precision': _percents(right, labels),
                'class_recall': _percents(right, true),
                'IoU': _percents(right, labels + kept.sum(axis=1) - right),
            }
        )
    return report


def _percents(part, whole):
    """Return the part in percent of the whole, to two digits: one number or a list; None if the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    values = [
        round(100 * float(p) / float(w), 2) if w else None
        for p, w in zip(part.ravel(), whole.ravel(), strict=True)
    ]
    return values if part.ndim else values[0]


def quality_table(report: dict) -> str:
    """Return the result of `measure_quality` as a Markdown table: one line per threshold, and the truth."""
    head = ['confidence', 'pixels', 'precision', *(f'{name}: share' for name in report['classes'])]
    head += [f'{name}: precision / recall' for name in report['classes']]
    empty = [''] * len(report['classes'])
    lines = [head, ['---'] * len(head), ['(truth)', '', '', *_words(report['truth']), *empty]]
    for row in report['thresholds']:
        pairs = zip(_words(row['class_precision']), _words(row['class_recall']), strict=True)
        lines.append(
            [
                f'≥ {row["threshold"]:g}',
                *_words([row['kept'], row['precision'], *row['share']]),
                *(f'{precision} / {recall}' for precision, recall in pairs),
            ]
        )
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _words(values: list[float | None]) -> list[str]:
    return ['–' if value is None else f'{value:.1f}' for value in values]
