"""Count the pixels of each class in the labeled masks."""

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
    """Set the number of pixels of each class in the labeled set, without void, in the model (DeS4, Sec. 3.3).

    Before training, each labeled mask is read once at its original size, distributed over the ranks. The result
    is cached in ``class_counts_FINGERPRINT.json`` next to the work folder and used by later runs. The
    fingerprint depends on the list of images, on size and time of the mask files, and on the loading
    transforms. The pass does not change the random state of the training.

    Args:
        cache_dir (str, optional): Folder of the file. Default: the parent of the work folder.
        pipeline (list, optional): Transforms that load and pack a labeled image. Default: the transforms of the
            labeled pipeline that load, check and pack, without resize, crop and flip.
        num_workers (int, optional): Workers of the loader. Default: same as in training.

    Raises:
        ValueError: The model does not count classes, the data are not labeled, or no labeled pixel has a class.
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
                f'ClassCountHook does not support {type(model).__name__}, which does not use class counts. '
                'Remove the hook from custom_hooks.'
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
        # Only one process reads the file, since others may have another file system or see incomplete files.
        found = [None]
        if is_main_process():
            print_ = fingerprint(dataset, num_classes)
            file = folder / f'class_counts_{print_[:16]}.json'
            found = [_read(file, print_, runner.logger)]
        broadcast_object_list(found)
        if found[0] is not None:
            return found[0]
        runner.logger.info(f'Counting the classes in the masks of {len(dataset)} labeled images.')
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
                runner.logger.info(f'The class counts are saved in {file}.')
            except OSError as error:
                runner.logger.warning(
                    f'The class counts cannot be saved in {file} ({error.strerror}), so the next run counts '
                    'again. Set cache_dir of ClassCountHook to a writable folder.'
                )
        return total.tolist()


class _Counted(Dataset):
    """Dataset of the pixel counts (C,) of each class per image. The loader's workers count."""

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
    """Fingerprint of a set of labels: entries of the list, mask files, and loading transforms."""
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
    """Yield the transforms of a dataset, or of the datasets that it wraps, with their settings."""
    for leaf in leaves(dataset):
        for transform in pipeline_transforms(leaf.dataset):
            settings = sorted((k, v) for k, v in vars(transform).items() if not k.startswith('_'))
            # Remove memory addresses of objects with the default repr.
            yield re.sub(r' at 0x\w+', '', f'{type(transform).__name__} {settings}')


def _read(file: Path, print_: str, logger) -> list[int] | None:
    """Return the counts in a file; None if it does not exist or is incomplete."""
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text())
        if kept['fingerprint'] == print_:
            logger.info(
                f'The class counts of {kept["images"]} labeled images are read from {file}.'
            )
            return kept['counts']
    except (ValueError, KeyError, TypeError):
        pass
    logger.warning(
        f'{file} does not contain the class counts of this labeled set. They are counted again.'
    )
    return None


def _write(file: Path, content: dict) -> None:
    """Write the file atomically, since several runs may write it at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name that is unique among runs on all machines.
    with tempfile.NamedTemporaryFile(
        'w', dir=file.parent, prefix=f'{file.stem}.', suffix='.partial', delete=False
    ) as partial:
        partial.write(json.dumps(content) + '\n')
    os.replace(partial.name, file)
