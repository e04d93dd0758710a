"""timm networks, with errors that say how to get missing networks and weights."""

from __future__ import annotations

import difflib

from mmseg.models.backbones import TIMMBackbone as StockTIMMBackbone
from mmseg.registry import MODELS
from packaging.specifiers import SpecifierSet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

#: Versions of timm with the networks of the configs; requirements/timm.txt has the same range.
SUPPORTED = '>=1.0.20,<1.1'


@MODELS.register_module(force=True)
class TIMMBackbone(StockTIMMBackbone):
    """MMSegmentation's wrapper of any timm network that supports ``features_only``.

    It replaces the stock class, with the same weights and outputs. If the installed timm lacks the network, or
    the weights do not exist, the error has a remedy. With ``sync_bn='torch'``, layers of timm that join batch
    normalization and activation keep their activation.

    Args:
        model_name (str): Name in timm, such as ``vit_small_patch16_dinov3``.
        **kwargs: Arguments of :class:`mmseg.models.backbones.TIMMBackbone`.

    Raises:
        ImportError: timm is not installed, or the installed version lacks this network of the configs.
        ValueError: timm has no network of this name.
    """

    def __init__(self, model_name: str, **kwargs) -> None:
        check_network(model_name)
        super().__init__(model_name, **kwargs)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        # The conversions of PyTorch and MMEngine from and to SyncBN add each converted module to its parent.
        if module is not None:
            keep_activations(module)
        super().add_module(name, module)

    def init_weights(self) -> None:
        """Load the weights of ``init_cfg``.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        try:
            super().init_weights()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error} Write it with a tool of tools/model_converters (docs/encoders.md), or set '
                'backbone.init_cfg=None, and neck.init_cfg=None if there is one, to start from random weights.'
            ) from None


def keep_activations(network: nn.Module) -> None:
    """Give batch normalizations of timm that were converted from or to SyncBN their activation back, in place.

    timm's ``BatchNormAct2d`` is a batch normalization with the activation as a child. The conversions replace
    it by a plain one that has the child and never calls it.

    Raises:
        ValueError: A layer was converted to MMCV's SyncBN, which cannot call the activation.
    """
    from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct

    for layer in network.modules():
        if not {'drop', 'act'} <= layer._modules.keys() or 'running_mean' not in layer._buffers:
            continue
        if isinstance(layer, nn.SyncBatchNorm):
            layer.__class__ = SyncBatchNormAct
        elif isinstance(layer, _BatchNorm):
            layer.__class__ = BatchNormAct2d
        elif type(layer).__module__.startswith('mmcv.'):
            raise ValueError(
                "sync_bn='mmcv' would remove the activations of this timm network. Set sync_bn='torch'."
            )


def check_network(name: str) -> None:
    """Raise ImportError or ValueError unless the installed timm has a network of this name.

    Args:
        name (str): Name with or without a tag of weights. A name with a colon, such as ``hf-hub:...``, is a
            source for timm and is not checked.
    """
    try:
        import timm
    except ImportError:
        raise ImportError(
            f'The network {name} is one of timm, which is not installed. Run `pip install "timm{SUPPORTED}"`.'
        ) from None
    if ':' in name or timm.is_model(name):
        return
    lacks = f'timm {timm.__version__} has no network {name}.'
    if not SpecifierSet(SUPPORTED).contains(timm.__version__, prereleases=True):
        raise ImportError(f'{lacks} Run `pip install "timm{SUPPORTED}"`.')
    close = difflib.get_close_matches(name.partition('.')[0], timm.list_models(), n=1, cutoff=0.0)
    raise ValueError(f'{lacks} Did you mean {close[0]}? timm.list_models() lists all.')
