"""Read the config of a supervised training, and check that it is one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import Config

from ..datasets.names import files_below
from ..datasets.unlabeled import IMAGE_ENDINGS
from ..datasets.walk import first_branch

#: Transforms of mmcv and MMSegmentation that read or change labels, or mix labeled images.
LABELS = (
    'LoadAnnotations',
    'LoadDepthAnnotation',
    'GenerateEdge',
    'PackSegInputs',
    'RandomMosaic',
    'RandomDepthMix',
)
#: Transforms that randomly change colors or erase pixels. The methods have their own strong views.
PHOTOMETRY = (
    'PhotoMetricDistortion',
    'RandomCutOut',
    'RandomGrayscale',
    'BioMedicalGaussianNoise',
    'BioMedicalGaussianBlur',
    'Albu',
)
#: Geometric transforms, and transforms that convert every image in the same way.
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
    """The transforms of a config's training pipeline, by kind.

    Attributes:
        load (list[dict]): Transforms that load an image.
        shared (list[dict]): Transforms that also apply to unlabeled images.
        labeled_only (list[str]): Types of transforms for labeled images only.
        unknown (list[str]): Types in ``shared`` that this package does not know.
    """

    load: list[dict]
    shared: list[dict]
    labeled_only: list[str]
    unknown: list[str]


def check_training(cfg: Config, name: str) -> None:
    """Reject a config that is not a supervised training of MMSegmentation.

    Args:
        cfg (Config): The resolved config.
        name (str): Name of the config in errors.

    Raises:
        ValueError: The config belongs to another package, has no network with a decode head, has no training,
            or already trains a method of this package.
    """
    if Config._is_lazy_import(cfg.filename):
        raise ValueError(
            f'{name} is written with read_base(), and a text config cannot inherit it. Write it as text with '
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
            f'{name} already trains with unlabeled images (model.type={model.get("type")!r}). Give the config '
            'of the plain network.'
        )
    if not model.get('decode_head'):
        raise ValueError(
            f'{name} is not a config of a segmentor: model.type={model.get("type")!r} has no decode_head. Give '
            'the config of an EncoderDecoder.'
        )
    missing = [k for k in ('train_dataloader', 'train_cfg', 'optim_wrapper') if not cfg.get(k)]
    if missing:
        raise ValueError(
            f'{name} has no training. Set {" and ".join(missing)}, or give the config of a training.'
        )
    for key in ('dataset', 'batch_size'):
        if not cfg.train_dataloader.get(key):
            raise ValueError(f'{name} has no train_dataloader.{key}. Set it.')
    if not (cfg.train_cfg.get('max_iters') or cfg.train_cfg.get('max_epochs')):
        raise ValueError(
            f'{name} has no length. Set train_cfg.max_iters, or train_cfg.max_epochs in a training by epochs.'
        )


def check_unlabeled(folder: str, suffixes: Sequence[str] | None) -> int:
    """Return the number of images in a folder and its subfolders.

    Args:
        folder (str): The folder.
        suffixes (Sequence[str], optional): Suffixes of images. Default: those of ``UnlabeledDataset``.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The folder has no image.
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
    """Return the training set without ``RepeatDataset``, and the Python code that refers to it.

    The samplers of this package repeat the labeled images.
    """
    code, dataset = '_base_.train_dataloader.dataset', cfg.train_dataloader.dataset
    while dataset.get('type') == 'RepeatDataset':
        code, dataset = f'{code}.dataset', dataset.dataset
    return code, dataset


def read_pipeline(dataset: dict, name: str) -> Pipeline:
    """Split the transforms of a training set into those for all images and those for labeled images.

    Raises:
        ValueError: There is no pipeline, or it does not load images.
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
            # cat_max_ratio needs labels.
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
    """Return the (height, width) of training images after the pipeline, and the setting that defines it.

    A crop is rounded up to a multiple of ``size_divisor``, to which the preprocessor pads it. The size is
    None if images are padded to the largest one in the batch (``size_divisor``).

    Raises:
        ValueError: The images of a batch do not have a common size.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        return tuple(preprocessor['size']), 'model.data_preprocessor.size'
    kind, size = _common_size(pipeline.shared)
    if size is not None:
        return _divisible(size, preprocessor.get('size_divisor') or 1), kind
    if preprocessor.get('size_divisor'):
        return None, f'model.data_preprocessor.size_divisor={preprocessor["size_divisor"]}'
    for transform in reversed(pipeline.shared):
        if transform['type'] == 'Pad' and transform.get('size'):
            width, height = transform['size']
            return (height, width), 'Pad'
    raise ValueError(
        f'The training images of {cfg.filename} have no common size. Set model.data_preprocessor.size, or add '
        'a RandomCrop to the pipeline.'
    )


def _common_size(transforms: Sequence[dict]) -> tuple[str, tuple[int, int] | None]:
    """Return the last transform after which all images have the same size, and that size after padding."""
    found, size = '', None
    for transform in transforms:
        kind = str(transform['type']).rpartition('.')[2]
        if kind in ('RandomCrop', 'CenterCrop'):
            crop = transform['crop_size']
            found, size = kind, (crop, crop) if isinstance(crop, int) else tuple(crop)
        elif kind == 'Resize' and transform.get('scale') and not transform.get('keep_ratio'):
            scale = transform['scale']
            width, height = (scale, scale) if isinstance(scale, int) else scale
            found, size = kind, (height, width)
        elif kind == 'Pad' and size is not None:
            width, height = transform.get('size') or (0, 0)
            size = (max(size[0], height), max(size[1], width))
            size = _divisible(size, transform.get('size_divisor') or 1)
    return found, size


def _divisible(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Round a size up to multiples."""
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


def image_channels(model: dict, preprocessor: dict) -> int:
    """Return the number of channels of the images. One value of ``mean`` can be that of all channels."""
    mean = preprocessor.get('mean')
    if mean is not None and len(mean) > 1:
        return len(mean)
    return (model.get('backbone') or {}).get('in_channels', 3)


def pretrained(cfg: Config) -> str | None:
    """Return the source of the initial weights; None if the training starts from scratch."""
    if cfg.get('load_from') or cfg.model.get('pretrained'):
        return str(cfg.get('load_from') or cfg.model.pretrained)
    inits = _as_list(cfg.model.get('init_cfg'))
    found = [init['checkpoint'] for init in inits if init.get('type') == 'Pretrained']
    return next(iter([*found, *_weights(cfg.model.get('backbone') or {})]), None)


def _weights(part: dict) -> Iterator[str]:
    """Yield the sources of the initial weights of an encoder and its submodules."""
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
