"""Check before a training that a new config can be trained."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from ..datasets.collate import collate_branches
from ..models import SemiSegmentor
from .stock import image_channels

#: Side of the test images if the config has no crop.
_SIDE = 512


def check_model(cfg: Config) -> str | None:
    """Build the model of a config without weights, and run a forward pass of a method's network.

    It runs on torch's meta device without values, and needs little time and memory.

    Returns:
        str, optional: The reason why the network could not be run, if it needs values.

    Raises:
        ValueError: The model cannot be built, or the method cannot train this network.
    """
    try:
        model = MODELS.build(cfg.model)
    except ValueError as error:
        raise _refused(cfg, error) from error
    except Exception as error:  # any network may raise any error, which is reported
        raise ValueError(
            f'The model cannot be built here ({type(error).__name__}: {error}). Install or correct what it '
            'names.'
        ) from error
    if not isinstance(model, SemiSegmentor):
        return None
    preprocessor = model.data_preprocessor
    divisor = preprocessor.size_divisor or 1
    size = preprocessor.size or (-(-_SIDE // divisor) * divisor,) * 2
    plain = cfg.model.get('segmentor', cfg.model)
    channels = image_channels(plain, cfg.model.data_preprocessor)
    # Some encoders and heads return other values in train mode. Normalization stays in eval mode, which
    # supports any batch size.
    network = getattr(model, model.built_networks[0]).to('meta').train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    try:
        with torch.no_grad():
            images = torch.zeros(2, channels, *size, device='meta')
            model.forward_network(network, images, num_auxiliary=1)
    except ValueError as error:
        raise _refused(cfg, error) from error
    except Exception as error:  # any network may raise any error without values, which is reported
        return f'{type(error).__name__}: {error}'.partition('\n')[0]
    return None


def _refused(cfg: Config, error: ValueError) -> ValueError:
    if 'segmentor' not in cfg.model:
        return error
    return ValueError(
        f'{cfg.model.type} cannot train this network: {error} ST and ST++ take any network: --method stpp.'
    )


def check_samples(cfg: Config) -> None:
    """Load the first labeled and the first unlabeled image as the training does.

    Self-training has no labels to load yet, so nothing is loaded for it.

    Raises:
        ValueError: The pipeline or the preprocessor does not support an image.
    """
    if cfg.train_dataloader.dataset.type != 'LabeledUnlabeledDataset':
        return
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    for kind, index in (('labeled', 0), ('unlabeled', dataset.num_labeled)):
        try:
            sample = dataset[index]
        except Exception as error:  # any transform may raise any error, which is reported
            path = dataset.get_data_info(index).get('img_path')
            said = ': '.join(filter(None, (type(error).__name__, str(error))))
            raise ValueError(
                f'{path} does not pass the pipeline of train_dataloader.dataset.{kind} ({said}). Correct that '
                'pipeline.'
            ) from error
        preprocessor(collate_branches([sample]), training=True)
