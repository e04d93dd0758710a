"""What each rank does in the tests of the DistributedDataParallel wrapper."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from loss_scalers import cpu_grad_scaler
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmseg.registry import MODEL_WRAPPERS, MODELS, OPTIM_WRAPPERS
from tiny import collated_batch, tiny_segmentor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from mmseg_semi.engine.hooks import prototype_mean_hook
from mmseg_semi.models import PartMemoryBank, PartPrototypes
from mmseg_semi.models.alignment import DistributionAlignment


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """MMEngine's AmpOptimWrapper in bfloat16 on a CPU, with a scaler that overflows in its first steps."""

    def __init__(self, **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = cpu_grad_scaler(init_scale=2.0**127, growth_interval=4)
        self._scale_update_param = None

    @contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), torch.autocast('cpu', torch.bfloat16):
            yield


def halve(batch: dict, rank: int, world_size: int) -> dict:
    """The rank's share of each branch of a collated batch."""

    def share(items):
        size = len(items) // world_size
        return items[rank * size : (rank + 1) * size]

    return {
        kind: {branch: share(items) for branch, items in branches.items()}
        for kind, branches in batch.items()
    }


def train_imas(
    rank: int, world_size: int, iterations: int, accumulative_counts: int = 1, norm: str = 'GN'
) -> dict:
    """Train iMAS for some iterations and return its weights and the iterations' logs."""
    # Boxes and pairs are drawn on each rank, so only the rest is the same on one and on two.
    settings = {'tau': 0.27, 'cutmix': None}
    return train_method(rank, world_size, iterations, 'IMAS', settings, accumulative_counts, norm)


def train_method(
    rank: int,
    world_size: int,
    iterations: int,
    method: str,
    settings: dict,
    accumulative_counts: int = 1,
    norm: str = 'GN',
    wrapper_type: str = 'OptimWrapper',
    lr: float = 0.05,
    segmentor: dict | None = None,
    frozen: bool = False,
    device: str = 'cpu',
    **network,
) -> dict:
    """Train a method for some iterations and return its weights and the iterations' logs.

    In float64, but for scaled losses, so that no hard label hangs on the order in which ranks sum.
    """
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': method,
            'segmentor': segmentor or tiny_segmentor(norm, auxiliary=True, **network),
            'semi_train_cfg': settings,
        }
    )
    model.init_weights()
    if hasattr(model, 'equalizer'):
        # As many pixels of each class: all of a batch are drawn, whichever rank has them.
        model.equalizer.class_counts.fill_(1)
    if wrapper_type != 'ScaledOptimWrapper':
        model.double()
    model.to(device)
    wrapped = world_size > 1 or torch.distributed.is_initialized()
    if wrapped:
        ids = None if device == 'cpu' else [0]
        model = MODEL_WRAPPERS.build(
            {'type': 'SemiDistributedDataParallel', 'module': model, 'device_ids': ids}
        )
    model.train()
    for module in model.modules():
        if frozen and isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    inner = model.module if wrapped else model
    wrapper = build_optim_wrapper(
        model,
        {
            'type': wrapper_type,
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': lr, 'momentum': 0.9},
            'accumulative_counts': accumulative_counts,
        },
    )
    wrapper.initialize_count_status(model, 0, iterations)
    start = {key: value.clone() for key, value in inner.state_dict().items()}
    logs = []
    for iteration in range(iterations):
        batch = collated_batch(4, 4, seed=iteration)
        logs.append(model.train_step(halve(batch, rank, world_size), wrapper))
        if wrapper.should_update() and hasattr(inner, 'update_teacher'):
            inner.update_teacher(0.9)
        if wrapper.should_update() and hasattr(inner, 'keep_student'):
            inner.keep_student()
    logs = [{key: value.detach() for key, value in log.items()} for log in logs]
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    scales = [w.loss_scaler.get_scale() for w in wrappers if hasattr(w, 'loss_scaler')]
    return {
        'state_dict': inner.state_dict(),
        'logs': logs,
        'scales': scales,
        'start': start,
        'sync_layers': sum(isinstance(m, torch.nn.SyncBatchNorm) for m in inner.modules()),
    }


def train_sync_bn(rank: int, iterations: int, method: str, settings: dict) -> dict:
    """Train with SyncBN on the first GPU, through the wrapper, as one of one rank."""
    return train_method(rank, 1, iterations, method, settings, norm='SyncBN', device='cuda')


#: Trainings of GPS: iterations and the arguments of :func:`train_method`. Boxes are drawn on each rank, so what
#: is to be the same on one and on two has none.
GPS_RUNS = {
    'plain': (20, {'cutmix': None}, {}),
    'accumulated': (20, {'cutmix': None}, {'accumulative_counts': 2}),
    'frozen': (20, {'cutmix': None}, {'norm': 'BN', 'frozen': True}),
    'merged': (6, {'cutmix': None, 'update': 'merged', 'recompute': True}, {}),
    'scaled': (6, {'cutmix': 'in_batch'}, {'wrapper_type': 'ScaledOptimWrapper', 'norm': 'BN'}),
    'scaled_and_accumulated': (
        8,
        {'cutmix': 'in_batch'},
        {'wrapper_type': 'ScaledOptimWrapper', 'norm': 'BN', 'accumulative_counts': 2},
    ),
}


#: Methods and settings of :func:`count_reduced`: the ways in which an update can be without a term.
REDUCED = [
    ('CPS', {'cutmix': 'in_batch'}),
    ('GPS', {'cutmix': 'in_batch'}),
    ('GPS', {'cutmix': None, 'update': 'merged', 'recompute': True}),
    ('GPS', {'cutmix': None, 'gps': False, 'cps': False}),
    ('GPS', {'cutmix': None, 'unlabeled_start': 9}),
]


def count_reduced(rank: int, method: str, settings: dict) -> dict:
    """Train one iteration; returns, by update, how many gradients are averaged, and what each reducer has."""
    torch.manual_seed(0)
    config = {'type': method, 'segmentor': tiny_segmentor('GN', auxiliary=True)}
    model = MODELS.build({**config, 'semi_train_cfg': settings})
    keys = set(model.state_dict())
    model = MODEL_WRAPPERS.build({'type': 'SemiDistributedDataParallel', 'module': model}).train()
    counts = {}

    def count(name, bucket):
        counts[name] = counts.get(name, 0) + bucket.buffer().numel()
        return default_hooks.allreduce_hook(None, bucket)

    for name in model.module.optimized:
        reducer = model.of_update(name)
        assert not reducer.find_unused_parameters
        reducer.register_comm_hook(name, count)
    optimizer = {'type': 'SGD', 'lr': 0.1}
    wrapper = build_optim_wrapper(
        model, {'constructor': 'NetworkOptimWrapperConstructor', 'optimizer': optimizer}
    )
    model.train_step(halve(collated_batch(4, 4), rank, 2), wrapper)
    number = sum(p.numel() for p in model.module.student1.parameters())
    same = {key.removeprefix('module.') for key in model.state_dict()} == keys
    return {'counts': counts, 'network': number, 'same_keys': same}


def train_gps(rank: int, world_size: int, *names: str) -> dict:
    """Run some of :data:`GPS_RUNS`, with sure networks, so that no label hangs on the last digit of a sum."""
    classifier = {'type': 'Normal', 'std': 2.0, 'override': {'name': 'conv_seg'}}
    results = {}
    for name in names:
        iterations, settings, options = GPS_RUNS[name]
        arguments = (rank, world_size, iterations, 'GPS', settings)
        results[name] = train_method(*arguments, lr=0.02, init_cfg=classifier, **options)
    if world_size > 1:
        results['reduced'] = [count_reduced(rank, *one) for one in REDUCED]
    return results


def train_each(rank: int, world_size: int, iterations: int, *runs: tuple) -> list:
    """Train once for each pair of a method and its settings: processes take longer to start than to train."""
    return [train_method(rank, world_size, iterations, *run) for run in runs]


def remember_parts(rank: int, world_size: int) -> dict:
    """Push the same images' parts, shared over the ranks, into a bank and prototypes; return their buffers."""
    torch.manual_seed(0)
    bank, prototypes = PartMemoryBank(2, 2, 3, 4), PartPrototypes(2, 2, 4, decay=0.9)
    prototypes.start(0, torch.ones(2, 4))
    for _ in range(5):
        means, present = torch.randn(4, 2, 2, 4), torch.rand(4, 2, 2) < 0.5
        share = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
        bank.push(means[share], present[share])
        prototypes.collect(means[share], present[share].long() * 3)
        prototypes.commit()
    return {**bank.state_dict(), **prototypes.state_dict()}


def start_prototypes(rank: int, norm: str, batches: list) -> torch.Tensor:
    """DeS4's first prototypes from each rank's own batches of labeled images."""
    torch.manual_seed(0)
    model = MODELS.build({'type': 'DeS4', 'segmentor': tiny_segmentor(norm)})
    prototype_mean_hook.start_prototypes(model, batches[rank])
    return model.prototypes.vectors


def align_batches(rank: int, batches: list) -> torch.Tensor:
    """Class shares after a step in which each rank has its own batch."""
    module = DistributionAlignment(batches[0][0].shape[1])
    module(*batches[rank])
    module.commit()
    return module.shares
