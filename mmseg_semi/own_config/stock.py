"""What the config of a supervised training says, and whether it is one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import Config

from ..datasets.names import files_below
from ..datasets.unlabeled import IMAGE_ENDINGS
from ..datasets.walk import first_branch

#: Of mmcv and MMSegmentation: what reads or makes labels, or mixes labeled images with each other.
LABELS = (
    'LoadAnnotations',
    'LoadDepthAnnotation',
    'GenerateEdge',
    'PackSegInputs',
    'RandomMosaic',
    'RandomDepthMix',
)
#: What changes colors or hides pixels at random. The methods have strong views of their own.
PHOTOMETRY = (
    'PhotoMetricDistortion',
    'RandomCutOut',
    'RandomGrayscale',
    'BioMedicalGaussianNoise',
    'BioMedicalGaussianBlur',
    'Albu',
)
#: What moves pixels, or converts every image alike.
SHARED = (
    'Resize',
    'RandomResize',
    'RandomChoiceResize',
    'ResizeShortestEdge',
    'ResizeToMultiple',
    'SegRescale',
    'RandomCrop',
    'CenterCrop',
    'RandomFlip',
    'RandomRotate',
    'RandomRotFlip',
    'Pad',
    'CLAHE',
    'AdjustGamma',
    'Rerange',
    'RGB2Gray',
)


@dataclass(frozen=True)
class Pipeline:
    """The training pipeline of a config, sorted.

    Attributes:
        load (list[dict]): What loads an image.
        shared (list[dict]): What unlabeled images pass, too; without what needs labels.
        labeled_only (list[str]): Types that they do not pass.
        unknown (list[str]): Types among ``shared`` that this package does not know.
    """

    load: list[dict]
    shared: list[dict]
    labeled_only: list[str]
    unknown: list[str]


def check_training(cfg: Config, name: str) -> None:
    """Refuse a config that is not a supervised training of MMSegmentation.

    Args:
        cfg (Config): Resolved.
        name (str): What the user calls it.

    Raises:
        ValueError: It is of another package, has no network with a decode head, cannot train, or trains a
            method of this package already.
    """
    if Config._is_lazy_import(cfg.filename):
        raise ValueError(
            f'{name} is written with read_base(), which no text config can inherit. Write it as text once, '
            f"Config.fromfile('{name}').dump('text.py'), and give that file."
        )
    model, scope = cfg.get('model'), cfg.get('default_scope') or 'mmseg'
    if scope not in ('mmseg', 'mmseg_semi') or not isinstance(model, dict):
        found = f'default_scope={scope!r}' if isinstance(model, dict) else 'it has no model'
        raise ValueError(
            f'{name} is not a config of MMSegmentation ({found}). Give the config of a segmentor.'
        )
    if 'segmentor' in model or cfg.get('runner_type') == 'StagedRunner':
        raise ValueError(
            f'{name} trains with unlabeled images already (model.type={model.get("type")!r}). Give the config '
            'of the network alone.'
        )
    if not model.get('decode_head'):
        raise ValueError(
            f'{name} is not a config of a segmentor: model.type={model.get("type")!r} has no decode_head. Give '
            'the config of an EncoderDecoder.'
        )
    missing = [k for k in ('train_dataloader', 'train_cfg', 'optim_wrapper') if not cfg.get(k)]
    if missing:
        raise ValueError(
            f'{name} does not train: it has no {" and no ".join(missing)}. Give the config of a training.'
        )
    for key in ('dataset', 'batch_size'):
        if not cfg.train_dataloader.get(key):
            raise ValueError(f'{name} has no train_dataloader.{key}. Set it.')


def check_unlabeled(folder: str, suffixes: Sequence[str] | None) -> int:
    """The number of images below a folder.

    Args:
        folder (str): Searched with its subfolders.
        suffixes (Sequence[str], optional): Endings of images. Default: those of ``UnlabeledDataset``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No file in it is an image.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f'--unlabeled {folder} is not a folder. Give the folder of the images without masks.'
        )
    wanted = tuple(suffix.lower() for suffix in suffixes or IMAGE_ENDINGS)
    names = list(map(os.path.basename, files_below(folder)))
    number = sum(name.lower().endswith(wanted) for name in names)
    if not names:
        raise ValueError(f'--unlabeled {folder} is empty. Give the folder of the images.')
    if not number:
        endings = Counter(os.path.splitext(name)[1] or name for name in names).most_common(3)
        found = ', '.join(f'{ending} ({count})' for ending, count in endings)
        raise ValueError(
            f'--unlabeled {folder} has no image that ends in {", ".join(wanted)}; its files end in {found}. '
            'Set --img-suffix, or give another folder.'
        )
    return number


def labeled_dataset(cfg: Config) -> tuple[str, dict]:
    """The training set and the Python by which a config on top names it, without a ``RepeatDataset`` around it.

    A sampler of this package repeats the labeled images itself.
    """
    code, dataset = '_base_.train_dataloader.dataset', cfg.train_dataloader.dataset
    while dataset.get('type') == 'RepeatDataset':
        code, dataset = f'{code}.dataset', dataset.dataset
    return code, dataset


def read_pipeline(dataset: dict, name: str) -> Pipeline:
    """Sort the transforms of a training set by what unlabeled images can pass.

    Raises:
        ValueError: It has no pipeline, or loads no image.
    """
    transforms = [t for part in reversed(first_branch(dataset)) for t in part.get('pipeline') or ()]
    load, shared, labeled_only, unknown = [], [], [], []
    for transform in transforms:
        kind = str(transform['type']).rpartition('.')[2]
        if kind in LABELS or kind in PHOTOMETRY:
            labeled_only.append(kind)
        elif kind.startswith('Load'):
            load.append(dict(transform))
        else:
            # The classes in a crop are counted in its labels.
            counting = ('cat_max_ratio', 'ignore_index') if kind == 'RandomCrop' else ()
            shared.append({key: v for key, v in transform.items() if key not in counting})
            if kind not in SHARED:
                unknown.append(kind)
    if not load:
        raise ValueError(
            f'{name} has no transform that loads an image in the pipeline of train_dataloader.dataset. '
            "Begin it with dict(type='LoadImageFromFile')."
        )
    return Pipeline(load, shared, [k for k in labeled_only if k not in _ALWAYS], unknown)


_ALWAYS = ('LoadAnnotations', 'PackSegInputs')


def crop_size(cfg: Config, pipeline: Pipeline) -> tuple[tuple[int, int] | None, str]:
    """(height, width) that training images leave the pipeline with, and the setting that says so.

    None where images of a batch are padded to the largest (``size_divisor``).

    Raises:
        ValueError: Nothing gives the images of a batch one size.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        return tuple(preprocessor['size']), 'model.data_preprocessor.size'
    for kind, size in _sizes(pipeline.shared):
        return size, kind
    if preprocessor.get('size_divisor'):
        return None, f'model.data_preprocessor.size_divisor={preprocessor["size_divisor"]}'
    raise ValueError(
        f'{cfg.filename} gives its training images no common size. Set model.data_preprocessor.size, or add a '
        'RandomCrop to the pipeline.'
    )


def _sizes(transforms: Sequence[dict]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Transforms after which all images have one size, and that size, the last first."""
    for transform in reversed(transforms):
        kind = str(transform['type']).rpartition('.')[2]
        if kind in ('RandomCrop', 'CenterCrop'):
            size = transform['crop_size']
            yield kind, (size, size) if isinstance(size, int) else tuple(size)
        elif kind == 'Resize' and transform.get('scale') and not transform.get('keep_ratio'):
            scale = transform['scale']
            width, height = (scale, scale) if isinstance(scale, int) else scale
            yield kind, (height, width)


def pretrained(cfg: Config) -> str | None:
    """Where the weights come from that a training starts with; None if it starts from scratch."""
    if cfg.get('load_from') or cfg.model.get('pretrained'):
        return str(cfg.get('load_from') or cfg.model.pretrained)
    inits = _as_list(cfg.model.get('init_cfg'))
    found = [init['checkpoint'] for init in inits if init.get('type') == 'Pretrained']
    return next(iter([*found, *_weights(cfg.model.get('backbone') or {})]), None)


def _weights(part: dict) -> Iterator[str]:
    """What an encoder, and those inside it, are initialized from."""
    if part.get('pretrained'):
        yield str(part['pretrained'])
    for init in _as_list(part.get('init_cfg')):
        if init.get('type') == 'Pretrained':
            yield str(init['checkpoint'])
    for key, value in part.items():
        if isinstance(value, dict) and key != 'init_cfg':
            yield from _weights(value)


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []
