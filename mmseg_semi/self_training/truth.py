"""Evaluate the ranking: mIoU of the pseudo-labels of both halves against ground truth (ST++, Fig. 3).

Only this module and `quality` read ground truth of unlabeled images, and only from a folder given by the user.
"""

from __future__ import annotations

import inspect
import json
import os.path as osp
from dataclasses import dataclass, field

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from mmseg_semi.datasets.files import missing_files
from mmseg_semi.datasets.meanings import meanings_of_config
from mmseg_semi.datasets.orientation import Pair
from mmseg_semi.datasets.transforms import CheckLabels
from mmseg_semi.datasets.walk import stage_leaves

from .images import ImagePool
from .labeling import check_settings
from .masks import classes_and_palette, read_mask
from .output import on_first_rank, write_bytes
from .prediction import VOID, Predictor, repeatable
from .progress import Progress, log
from .scores import SCORES, read_table
from .selection import SUMMARY

REPORT = 'truth.json'


def report_truth(
    cfg: Config,
    checkpoint: str,
    images: dict,
    out_dir: str,
    truth: str,
    *,
    truth_suffix: str = '.png',
    batch_size: int = 8,
    num_workers: int = 2,
    logger: MMLogger | str | None = None,
) -> dict:
    """Compare the masks of the reliable and of the unreliable images with their true masks (ST++, Fig. 3).

    Uses one forward pass per image and one confusion matrix per half, without void; the IoU is averaged over
    the classes that occur in truth or prediction. All ranks of a job call this function and share the images.

    Args:
        cfg (Config): See `pseudo_label`.
        checkpoint (str): Path of the last checkpoint used for scoring.
        images (dict): The scored images.
        out_dir (str): Finished folder of `select_reliable`.
        truth (str): Folder of true masks: 8-bit class indices, with the ``ignore_index`` of the network's heads
            (255) for void. Each has its image's name with ``truth_suffix`` instead of ``img_suffix``. If the
            config's test dataset has ``reduce_zero_label`` or ``label_map``, they also apply to these masks.
        truth_suffix (str): Ending of the true masks.
        batch_size (int): Maximum number of images of one size per batch.
        num_workers (int): Number of loader processes per rank; 0 loads in the calling process.
        logger (MMLogger or str, optional): Logger for `print_log`. Default: the current one.

    Returns:
        dict: Content of ``out_dir/truth.json``: ``mIoU`` and per class ``IoU`` in percent, each for
        ``reliable``, ``unreliable`` and ``all``; None for classes that do not occur.

    Raises:
        FileNotFoundError: A true mask does not exist.
        ValueError: ``out_dir`` is not finished, was made from other images, or a true mask does not fit.
    """
    check_settings(scales=(1.0,), batch_size=batch_size, num_workers=num_workers)
    pool = ImagePool(cfg, images)
    reliable = on_first_rank(_reliable, out_dir, pool)
    paths = [osp.join(truth, pool.true_mask_name(i, truth_suffix)) for i in range(len(pool))]
    on_first_rank(check_true_masks, paths)
    reading = TruthReading.of_test(cfg)
    rank, world = get_dist_info()
    with repeatable():
        predictor = Predictor(cfg, checkpoint, get_device())
        number = predictor.num_classes
        counts = np.zeros((2, number, number), dtype=np.int64)
        batches = pool.plan(batch_size)
        with Progress('true masks', len(pool), [predictor]) as bar:
            for positions, samples in pool.load(batches[rank::world], num_workers):
                size = samples[0]['data_samples'].ori_shape[:2]
                masks = predictor.masks(predictor.prepare(samples), size).cpu().numpy()
                for i, mask in zip(positions, masks, strict=True):
                    true = read_true_mask(
                        paths[i],
                        pool.info(i)['img_path'],
                        mask,
                        number,
                        reading,
                        predictor.ignore_index,
                    )
                    counts[int(reliable[i])] += _confusion(true, mask, number)
                bar.update(len(positions))
            bar.finish('compared with true masks', logger)
    unsure, sure = sum(all_gather_object(counts))
    halves = {'reliable': sure, 'unreliable': unsure, 'all': sure + unsure}
    names, _ = classes_and_palette(None, predictor.dataset_meta, cfg, number)
    report = {
        'truth': truth,
        'checkpoint': checkpoint,
        'classes': names,
        'mIoU': {
            half: _percent(np.nanmean(_iou(c))) if c.any() else None for half, c in halves.items()
        },
        'IoU': {half: [_percent(x) for x in _iou(c)] for half, c in halves.items()},
    }
    path = osp.join(out_dir, REPORT)
    on_first_rank(write_bytes, path, json.dumps(report, indent=1).encode())
    values = ', '.join(f'{half} {value}' for half, value in report['mIoU'].items())
    log(f'mIoU of the pseudo-masks in percent: {values} ({path})', logger)
    return report


def _reliable(out_dir: str, pool: ImagePool) -> list[bool]:
    """Return whether each image of the pool is reliable, from `select_reliable`."""
    if not osp.isfile(osp.join(out_dir, SUMMARY)):
        raise ValueError(
            f'{out_dir} has no {SUMMARY}, so not all of its images are scored. Finish the selection first.'
        )
    ids, _, reliable = read_table(osp.join(out_dir, SCORES))
    if ids != pool.ids:
        raise ValueError(
            f'{out_dir} has the scores of other images. Give the images that were scored.'
        )
    return reliable


def check_true_masks(paths: list[str]) -> None:
    """Raise FileNotFoundError unless all these files exist."""
    missing = missing_files(paths)
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(paths)} true masks do not exist, the first is {missing[0]}. Name the '
            'folder in which every image has one of its name, and their ending.'
        )


def reduces_zero_label(cfg: Config) -> bool:
    """Whether the annotations of the config's test sets count classes from 1, with 0 for void."""
    found = {}
    for leaf in stage_leaves(cfg, 'test'):
        kind = leaf.dataset.get('of') or leaf.dataset.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        usual = inspect.signature(kind).parameters.get('reduce_zero_label')
        default = usual is not None and usual.default is True
        found[leaf.key] = bool(leaf.dataset.get('reduce_zero_label', default))
    if len(set(found.values())) > 1:
        said = ', '.join(f'{key}.reduce_zero_label={value}' for key, value in found.items())
        raise ValueError(f'{said}. Give all test sets the value that fits the true masks.')
    return any(found.values())


def label_map_of(cfg: Config) -> dict[int, int]:
    """Return the map from mask values to class indices of the config's test sets; empty without a map."""
    found = {m.key: m.label_map or {} for m in meanings_of_config(cfg, 'test')}
    maps = list(found.values())
    if any(other != maps[0] for other in maps):
        said = ', '.join(f'{key}.label_map={value}' for key, value in found.items())
        raise ValueError(f'{said}. Give all test sets the map that fits the true masks.')
    return maps[0] if maps else {}


@dataclass(frozen=True)
class TruthReading:
    """How true masks are read: as the test sets of a config read theirs.

    Attributes:
        reduce_zero_label (bool): Whether 0 is void and the classes count from 1.
        label_map (dict[int, int]): Mask value = class index, applied after ``reduce_zero_label``.
        is_displayed (bool): Whether images are loaded as viewers display them.
        drawn_on (str, optional): View of the masks, see ``LoadAnnotations``.
    """

    reduce_zero_label: bool = False
    label_map: dict[int, int] = field(default_factory=dict)
    is_displayed: bool = True
    drawn_on: str | None = None

    @classmethod
    def of_test(cls, cfg: Config) -> TruthReading:
        """Return the reading of the config's test sets.

        Raises:
            ValueError: The test sets read their masks in different ways.
        """
        configs = [
            step for leaf in stage_leaves(cfg, 'test') for step in leaf.dataset.get('pipeline', ())
        ]
        drawn_on = next((step['drawn_on'] for step in configs if step.get('drawn_on')), None)
        ignored = any(
            str(step.get('color_type')).endswith('ignore_orientation') for step in configs
        )
        return cls(reduces_zero_label(cfg), label_map_of(cfg), not ignored, drawn_on)


def read_true_mask(
    path: str,
    image_path: str,
    mask: np.ndarray,
    num_classes: int,
    reading: TruthReading,
    void: int,
) -> np.ndarray:
    """Return classes (H, W), rotated like the image, with 255 for ``void``.

    Raises:
        ValueError: The file does not fit the image or the classes.
    """
    true = read_mask(path)
    pair = Pair.of_files(image_path, path, mask.shape, true.shape, reading.is_displayed)
    if pair is not None:
        true = pair.match(true, reading.drawn_on)
    if reading.reduce_zero_label:  # in uint8, 0 - 1 is the void value
        true = np.where(true == VOID, VOID, true - 1).astype(true.dtype)
    stored = true.copy()
    for value, index in reading.label_map.items():
        true[stored == value] = index
    # The check needs the image only for its size.
    CheckLabels(num_classes, void).transform(
        dict(gt_seg_map=true, seg_map_path=path, img=mask[..., None], img_path=image_path)
    )
    return np.where(true == void, VOID, true)


def _confusion(true: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    valid = (true != VOID) & (mask != VOID)
    key = true[valid].astype(np.int64) * num_classes + mask[valid]
    return np.bincount(key, minlength=num_classes**2).reshape(num_classes, num_classes)


def _iou(confusion: np.ndarray) -> np.ndarray:
    both = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else round(100 * float(value), 2)
