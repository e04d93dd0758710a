"""How many pixels of each class the labeled set has, from one pass over its masks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from mmcv.transforms import LoadAnnotations
from mmengine.dist import all_reduce, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch.utils.data import Dataset

from ...datasets.backends import backend_of_loader, is_local
from ...datasets.children import file_loaders, pipeline_transforms
from ...datasets.walk import leaves
from ._common import unwrap
from ._labeled_images import labeled_images, own_share


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Give the model the pixels of each class in the labeled set, void left out (DeS4, Sec. 3.3).

    Before training, each labeled mask is read once at its own size, shared over the ranks. The result is kept
    in ``class_counts_FINGERPRINT.json`` beside the work directory, where later runs with the same list find
    it; the fingerprint is of the list, of sizes and times of the mask files, and of how they are loaded, so
    that with another list it is another file. No random number of the training is drawn.

    Args:
        cache_dir (str, optional): Folder of the file. Default: the one that the work directory lies in.
        pipeline (list, optional): Transforms that load and pack a labeled image. Default: those of the
            labeled pipeline that load, check and pack, so without resize, crop and flip.
        num_workers (int, optional): Of the pass's loader. Default: as many as the training's.

    Raises:
        ValueError: The model or its data do not fit, or no pixel of the labeled set has a class.
    """

    def __init__(
        self,
        cache_dir: str | None = None,
        pipeline: list | None = None,
        num_workers: int | None = None,
    ) -> None:
        self.cache_dir = cache_dir
        self.pipeline = pipeline
        self.num_workers = num_workers

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not hasattr(model, 'equalizer'):
            raise ValueError(
                f'ClassCountHook found a {type(model).__name__}, which needs no class counts. Remove '
                'the hook from custom_hooks.'
            )
        dataset = labeled_images(runner, self, self.pipeline)
        found = model.equalizer.class_counts
        counts = self._counts(runner, dataset, len(found))
        found.copy_(torch.tensor(counts))
        classes = dataset.metainfo.get('classes') or range(len(counts))
        absent = [str(name) for name, number in zip(classes, counts, strict=True) if number == 0]
        runner.logger.info(
            f'Labeled pixels of each class: {counts}.'
            + (f' The labeled images lack {", ".join(absent)}.' if absent else '')
        )

    def _counts(self, runner, dataset: Dataset, num_classes: int) -> list[int]:
        folder = Path(self.cache_dir or os.path.dirname(os.path.abspath(runner.work_dir)))
        # One process asks the file system, where others may see another one, or files that are in the making.
        found = [None]
        if is_main_process():
            print_ = fingerprint(dataset, num_classes)
            file = folder / f'class_counts_{print_[:16]}.json'
            found = [_read(file, print_, runner.logger)]
        broadcast_object_list(found)
        if found[0] is not None:
            return found[0]
        runner.logger.info(f'The masks of {len(dataset)} labeled images are counted once.')
        total = torch.zeros(num_classes, dtype=torch.int64)
        counted = _Counted(dataset, num_classes, unwrap(runner.model).ignore_index)
        for counts in own_share(runner, counted, self.num_workers, collate_fn=_only):
            total += counts
        all_reduce(total)
        if not total.any():
            raise ValueError(
                f'No pixel of the {len(dataset)} labeled masks has a class. Correct the masks, whose values '
                f'are class indices below {num_classes}, or reduce_zero_label.'
            )
        if is_main_process():
            content = {'fingerprint': print_, 'images': len(dataset), 'counts': total.tolist()}
            try:
                _write(file, content)
                runner.logger.info(f'The class counts are kept in {file}.')
            except OSError as error:
                runner.logger.warning(
                    f'The class counts cannot be kept in {file} ({error.strerror}) and the next run counts '
                    'again. Set cache_dir of ClassCountHook to a folder that can be written.'
                )
        return total.tolist()


class _Counted(Dataset):
    """The pixels (C,) of each class in each image of a dataset; the loader's workers count them."""

    def __init__(self, dataset: Dataset, num_classes: int, ignore_index: int) -> None:
        self.dataset = dataset
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        label = self.dataset[index]['data_samples'].gt_sem_seg.data.flatten().long()
        label = label[label != self.ignore_index]
        return label.bincount(minlength=self.num_classes)[: self.num_classes]


def _only(samples: list[torch.Tensor]) -> torch.Tensor:
    (sample,) = samples
    return sample


def fingerprint(dataset: Dataset, num_classes: int) -> str:
    """What tells one set of labels from another: the entries of the list, the mask files, the loading."""
    digest = hashlib.sha256(f'{num_classes} {"; ".join(_loading(dataset))}'.encode())
    loader = next((t for t in file_loaders(dataset) if isinstance(t, LoadAnnotations)), None)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        digest.update(repr(sorted(info.items())).encode())
        mask = info.get('seg_map_path')
        if mask and loader is not None and is_local(backend_of_loader(loader, mask)):
            state = os.stat(mask)
            digest.update(f'{state.st_size} {state.st_mtime_ns}'.encode())
    return digest.hexdigest()


def _loading(dataset) -> Iterator[str]:
    """The transforms of a dataset, or of those that it wraps, with their settings."""
    for leaf in leaves(dataset):
        for transform in pipeline_transforms(leaf.dataset):
            settings = sorted((k, v) for k, v in vars(transform).items() if not k.startswith('_'))
            # Without the addresses of objects that do not say what they are.
            yield re.sub(r' at 0x\w+', '', f'{type(transform).__name__} {settings}')


def _read(file: Path, print_: str, logger) -> list[int] | None:
    """The counts of a file; None where there is none yet, or none that was completed."""
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text())
        if kept['fingerprint'] == print_:
            logger.info(f'The class counts of {kept["images"]} labeled images are those of {file}.')
            return kept['counts']
    except (ValueError, KeyError, TypeError):
        pass
    logger.warning(
        f'{file} does not hold the class counts of this labeled set: they are counted again.'
    )
    return None


def _write(file: Path, content: dict) -> None:
    """Complete or not at all; several runs may do so at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name that no other run has, on whatever machine it is.
    with tempfile.NamedTemporaryFile(
        'w', dir=file.parent, prefix=f'{file.stem}.', suffix='.partial', delete=False
    ) as partial:
        partial.write(json.dumps(content) + '\n')
    os.replace(partial.name, file)
