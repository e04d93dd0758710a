"""Run MMSegmentation's get_flops.py on the network with which a method predicts.

The stock tool reads `model.decode_head` of the config and would count the parameters of all networks. This
tool gives it the plain config that `tools/export.py` writes. It needs no checkpoint.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mmseg
from mmengine import analysis
from mmengine.config import DictAction

import mmseg_semi  # noqa: F401  registers the package's modules
from mmseg_semi.cli import load_config, one_sentence_errors
from mmseg_semi.engine.export import plain_config

STOCK = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'analysis_tools' / 'get_flops.py'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or package::path for a config that was installed'
    )
    parser.add_argument(
        '--shape', type=int, nargs='+', default=[2048, 1024], help='size of the image'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, as key=value'
    )
    options = parser.parse_args(argv)
    options.launcher, options.local_rank = 'none', 0
    return options


def without_shape(function: Callable[..., dict]) -> Callable[..., dict]:
    """Drop the shape that the script of MMSegmentation 1.2.2 passes with the inputs. MMEngine refuses both."""

    def get_model_complexity_info(model, input_shape=None, inputs=None, **kwargs) -> dict:
        return function(model, input_shape if inputs is None else None, inputs, **kwargs)

    return get_model_complexity_info


def main() -> None:
    args = parse_args()
    with one_sentence_errors(), tempfile.TemporaryDirectory() as folder:
        if not STOCK.is_file():
            raise FileNotFoundError(
                f'{STOCK} does not exist. Export the network with tools/export.py, and give the config.py that '
                "it writes to get_flops.py of MMSegmentation's repository."
            )
        path = Path(folder, 'config.py')
        plain_config(load_config(args), {}).dump(str(path))
        sys.argv = [str(STOCK), str(path), '--shape', *map(str, args.shape)]
        analysis.get_model_complexity_info = without_shape(analysis.get_model_complexity_info)
        runpy.run_path(str(STOCK), run_name='__main__')


if __name__ == '__main__':
    main()
