"""Count the memory of weights, gradients, optimizer state and buffers of a training, without allocating it.

The model and its optimizers are built on PyTorch's meta device, which has shapes and no values. The table lists
GB (10^9 bytes) by dtype: the parameters of each network, their gradients, the state of the optimizers, and
buffers such as memory banks. Activations are not counted. They depend on the size and number of the images and
are often most of the memory. Hooks do not run, so layers that FreezeHook freezes are counted as trained.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import mmseg_semi  # noqa: F401  registers the package's modules
from mmseg_semi.cli import add_config_arguments, load_config, one_sentence_errors
from mmseg_semi.models import SemiSegmentor


class _RatesOnHost(TorchFunctionMode):
    """Computes linspace on the CPU: stochastic depth reads its values, and meta tensors have none."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs['device'] = 'cpu'
        return func(*args, **kwargs)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or package::path for a config that was installed'
    )
    add_config_arguments(parser)
    return parser.parse_args(argv)


def build_on_meta(cfg: Config) -> nn.Module:
    """The model of a config, without memory for its tensors.

    Raises:
        ValueError: The model reads values of its tensors while it is built.
    """
    with torch.device('meta'), _RatesOnHost():
        try:
            return MODELS.build(cfg.model)
        except (NotImplementedError, RuntimeError) as error:
            if 'meta' not in str(error):
                raise
            reason = str(error).splitlines()[0].rstrip('.')
            raise ValueError(
                f'{cfg.model.type} cannot be built without values ({reason}). Leave out the part that reads '
                'them.'
            ) from error


def count(model: nn.Module, cfg: Config) -> dict[str, Counter]:
    """Bytes by purpose and dtype.

    Args:
        model (nn.Module): On the meta device.
        cfg (Config): Of the training; its ``optim_wrapper`` is built.
    """
    rows = dict(_parts(model))
    trained = [one for one in model.parameters() if one.requires_grad]
    rows['gradients'] = _bytes(trained)
    rows['optimizer state'] = _bytes(_optimizer_state(model, cfg))
    return {name: row for name, row in rows.items() if row}


def _parts(model: nn.Module) -> Iterator[tuple[str, Counter]]:
    names = model.networks if isinstance(model, SemiSegmentor) else ()
    networks = [getattr(model, name) for name in names]
    # Tensors that networks share are counted once, with the first.
    seen: set[int] = set()
    for name, network in zip(names, networks, strict=True):
        yield f'parameters of {name}', _bytes(_new(network.parameters(), seen))
    yield f'{"other " if names else ""}parameters', _bytes(_new(model.parameters(), seen))
    for name, network in zip(names, networks, strict=True):
        yield f'buffers of {name}', _bytes(_new(network.buffers(), seen))
    yield f'{"other " if names else ""}buffers', _bytes(_new(model.buffers(), seen))


def _new(tensors: Iterable[Tensor], seen: set[int]) -> Iterator[Tensor]:
    for tensor in tensors:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _bytes(tensors: Iterable[Tensor]) -> Counter:
    total = Counter()
    for tensor in tensors:
        total[str(tensor.dtype).removeprefix('torch.')] += tensor.numel() * tensor.element_size()
    return total


def _optimizer_state(model: nn.Module, cfg: Config) -> list[Tensor]:
    """The state tensors of the optimizers after one step on meta gradients."""
    wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': 'OptimWrapper'})
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    state = []
    for one in wrappers:
        one.optimizer.step()
        state += [value for values in one.optimizer.state.values() for value in values.values()]
    return [value for value in state if isinstance(value, Tensor)]


def table(rows: dict[str, Counter]) -> str:
    """A Markdown table of GB with the total."""
    dtypes = sorted({dtype for row in rows.values() for dtype in row})
    rows = {**rows, 'total': sum(rows.values(), Counter())}
    lines = [['GB', *dtypes], ['---'] * (len(dtypes) + 1)]
    for name, row in rows.items():
        lines.append([name, *(f'{row[dtype] / 1e9:.3f}' for dtype in dtypes)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        cfg = load_config(args)
        if cfg.get('optim_wrapper') is None:
            raise ValueError(f'{args.config} has no optim_wrapper. Give the config of a training.')
        init_default_scope('mmseg')
        # Otherwise MMEngine logs each parameter group.
        MMLogger.get_instance('memory', log_level='WARNING')
        print(table(count(build_on_meta(cfg), cfg)))
        print('\nActivations are not counted.')


if __name__ == '__main__':
    main()
