"""Networks of timm, with a sentence for what is missing."""

from __future__ import annotations

import difflib

from mmseg.models.backbones import TIMMBackbone as StockTIMMBackbone
from mmseg.registry import MODELS
from packaging.specifiers import SpecifierSet

#: Versions of timm that have the networks of the configs; requirements/timm.txt names the same.
SUPPORTED = '>=1.0.20,<1.1'


@MODELS.register_module(force=True)
class TIMMBackbone(StockTIMMBackbone):
    """MMSegmentation's wrapper of any network of timm that has ``features_only``.

    It takes the place of the stock class, with the same weights and outputs. Where the installed timm lacks the
    network, or the weights are not there, it says what to do.

    Args:
        model_name (str): Of timm, such as ``vit_small_patch16_dinov3``.
        **kwargs: Of :class:`mmseg.models.backbones.TIMMBackbone`.

    Raises:
        ImportError: timm is not installed, or is older than the networks of the configs and lacks this one.
        ValueError: timm has no network of this name.
    """

    def __init__(self, model_name: str, **kwargs) -> None:
        check_network(model_name)
        super().__init__(model_name, **kwargs)

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names.

        Raises:
            FileNotFoundError: There is no such file.
        """
        try:
            super().init_weights()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error} Write it with a tool of tools/model_converters (docs/encoders.md), or set '
                'backbone.init_cfg=None, and neck.init_cfg=None if there is one, to start from random weights.'
            ) from None


def check_network(name: str) -> None:
    """Raise ImportError or ValueError unless the installed timm has a network of this name.

    Args:
        name (str): With or without a tag of weights. One with a colon, such as ``hf-hub:...``, says where timm
            finds it, and is left to timm.
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
