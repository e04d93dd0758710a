"""Compare the time of a training step of a method with that of its necessary network passes.

Both run alternately in one process with the same weights and images. The result is the ratio of the medians.
The step is all of ``train_step`` (normalization, targets, mixing, losses, backward pass, optimizer) and the
average of the teacher. The network passes are forward and backward passes only. Their cost, in forward passes
of an image pair (a backward pass counts as two):

- iMAS: two forward passes for pseudo-labels on the weak view, and the forward and backward pass of the
  student on the labeled images and two views (11).
- ESL: the forward pass of the teacher on the labeled images and the weak view, and the forward and backward
  pass of the student on them, both with segmentation head and projector (8, and the heads).
- DeS4: the forward pass of the teacher with the backward pass of its decoder on the labeled images, and the
  forward and backward pass of the student (8, and 2 of a decoder).
- CPS, GPS: the forward and backward passes of each network, those of GPS's teacher after those of the
  students (14 and 23 with CutMix within the batch; 12 and 20 with ``--no-cutmix``, where one forward pass is
  used for the pseudo-labels and for training).
- PrevMatch: the forward passes of two earlier models on the weak view, and the forward and backward passes of
  the student on the labeled images and the weak view, whose features pass through the decoder twice, and on
  both strong views (14, and 3 of a decoder).
- CorrMatch: the forward and backward pass on the labeled images and the weak view, which passes through the
  decoder twice, and on the strong view, both with the correlation maps (9, and 3 of a decoder).

``--channels-last`` and ``--compile`` also measure a step with this setting.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmseg_semi
from mmseg_semi.models.gradients import without_gradients
from mmseg_semi.models.segmentors.mean_teacher import MeanTeacherSegmentor
from mmseg_semi.models.segmentors.networks import evaluating

METHODS = ('iMAS', 'ESL', 'DeS4', 'CPS', 'GPS', 'PrevMatch', 'CorrMatch')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--method', default='iMAS', choices=METHODS)
    parser.add_argument(
        '--depth', type=int, default=50, choices=(18, 50, 101), help='depth of the ResNet'
    )
    parser.add_argument('--size', type=int, default=129, help='height and width of the crops')
    parser.add_argument('--labeled', type=int, default=2, help='labeled images in the batch')
    parser.add_argument('--unlabeled', type=int, default=2, help='unlabeled images in the batch')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument(
        '--no-cutmix', action='store_true', help='of CPS and GPS, which then label what they learn'
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, in both')
    parser.add_argument(
        '--channels-last', action='store_true', help='also measure a step with this setting'
    )
    parser.add_argument(
        '--compile', action='store_true', help='also measure a step with this setting'
    )
    parser.add_argument('--threads', type=int, default=1, help='CPU threads')
    parser.add_argument('--repeats', type=int, default=9, help='measurements of each, at least 7')
    parser.add_argument('--warmup', type=int, default=2)
    parser.add_argument('--target', type=float, default=1.06, help='ratio that --check allows')
    parser.add_argument(
        '--check', action='store_true', help='fail if the ratio is above the target'
    )
    args = parser.parse_args(argv)
    if args.no_cutmix and args.method not in ('CPS', 'GPS'):
        parser.error(f'--no-cutmix is for CPS and GPS, not for {args.method}.')
    if args.repeats < 7:
        parser.error(f'--repeats {args.repeats}: a median of fewer than 7 says little.')
    return args


def network_config(depth: int, num_classes: int) -> dict:
    """The stock DeepLabv3+ over a ResNet, without auxiliary head."""
    (base,) = mmseg_semi.bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
    segmentor = Config.fromfile(base).model
    norm_cfg = {'type': 'BN', 'requires_grad': True}
    segmentor.update(pretrained=None, auxiliary_head=None)
    segmentor.backbone.update(depth=depth, norm_cfg=norm_cfg)
    del segmentor.decode_head['loss_decode']
    segmentor.decode_head.update(
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        loss_decode={'type': 'PixelCrossEntropyLoss'},
    )
    if depth == 18:
        segmentor.decode_head.update(in_channels=512, c1_in_channels=64)
    return segmentor


def build_model(args: argparse.Namespace, **switches: bool) -> torch.nn.Module:
    """The method over `network_config`, randomly initialized, with settings of speed."""
    segmentor = network_config(args.depth, args.classes)
    # With random weights, some pixels are above this threshold and some below.
    threshold = {'iMAS': 'tau', 'ESL': 'anchor_threshold', 'CorrMatch': 'tau_start'}.get(
        args.method
    )
    train_cfg = {threshold: 2 / args.classes} if threshold else {}
    if args.method in ('CPS', 'GPS'):
        train_cfg = {'cutmix': None if args.no_cutmix else 'in_batch'}
    if args.method == 'PrevMatch':
        labels = {'tau': 2 / args.classes, 'guidance_tau': 2 / args.classes}
        train_cfg = {**labels, 'max_drawn': 2, 'random_number': False}
    name = {'iMAS': 'IMAS'}.get(args.method, args.method)
    train_cfg.update(switches)
    model = MODELS.build({'type': name, 'segmentor': segmentor, 'semi_train_cfg': train_cfg})
    model.init_weights()
    if args.method == 'ESL':  # as in a later phase of the training
        contrast = model.contrast
        contrast.bank.rows[:-1].normal_()
        contrast.bank.fill.fill_(contrast.bank.capacity)
        contrast.prototypes.vectors.normal_()
        contrast.prototypes.valid.fill_(True)
    if args.method == 'DeS4':
        model.equalizer.class_counts.copy_(torch.arange(1, args.classes + 1))
    model.to(args.device).train()
    if args.method == 'PrevMatch':
        for _ in range(2):
            model.keep_student()
    return model


def make_batch(args: argparse.Namespace) -> dict:
    generator = torch.Generator().manual_seed(0)
    size = (args.size, args.size)

    def images(num: int) -> torch.Tensor:
        return torch.randint(0, 256, (num, 3, *size), dtype=torch.uint8, generator=generator)

    def sample(**maps: torch.Tensor) -> SegDataSample:
        data_sample = SegDataSample(metainfo={'img_shape': size, 'img_path': 'made up'})
        data_sample.set_data({key: PixelData(data=value) for key, value in maps.items()})
        return data_sample

    label = torch.randint(0, args.classes, (1, *size), generator=generator)
    valid = torch.ones(1, *size, dtype=torch.bool)
    weak = images(args.unlabeled)
    return {
        'inputs': {
            'labeled': images(args.labeled),
            'weak': weak,
            'strong': 255 - weak,
            'strong2': weak // 2,
        },
        'data_samples': {
            'labeled': [sample(gt_sem_seg=label) for _ in range(args.labeled)],
            **{
                branch: [sample(valid_mask=valid) for _ in range(args.unlabeled)]
                for branch in ('weak', 'strong', 'strong2')
            },
        },
    }


class Bench:
    """The two contestants, on one model and one batch."""

    def __init__(self, args: argparse.Namespace, **switches: bool) -> None:
        torch.manual_seed(0)
        self.args = args
        self.model = build_model(args, **switches)
        self.wrapper = build_optim_wrapper(
            self.model,
            {
                'type': 'AutocastOptimWrapper' if args.amp else 'OptimWrapper',
                'constructor': 'NetworkOptimWrapperConstructor',
                'optimizer': {'type': 'SGD', 'lr': 1e-3, 'momentum': 0.9, 'weight_decay': 1e-4},
            },
        )
        self.wrapper.initialize_count_status(self.model, 0, 1000)
        self.batch = make_batch(args)
        inputs = self.model.data_preprocessor(self.batch, True)['inputs']
        self.labeled, self.weak = inputs['labeled'], inputs['weak']
        branches = ('labeled', 'weak', 'strong') if args.method == 'iMAS' else ('labeled', 'weak')
        self.joint = torch.cat([inputs[branch] for branch in branches])
        self.strong = torch.cat([inputs['strong'], inputs['strong2']])

    def step(self) -> None:
        self.model.train_step(self.batch, self.wrapper)
        if isinstance(self.model, MeanTeacherSegmentor):
            self.model.update_teacher(0.996)

    def passes(self) -> None:
        passes = getattr(self, f'{self.args.method.lower()}_passes')
        with torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.amp):
            for outputs in passes():
                torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        self.model.zero_grad()

    def imas_passes(self) -> Iterator[list[torch.Tensor]]:
        student, teacher = self.model.student, self.model.teacher
        with without_gradients(), evaluating(student):
            student._forward(self.weak)
        with without_gradients():
            teacher._forward(self.weak)
        yield [student._forward(self.joint)]

    def esl_passes(self) -> Iterator[list[torch.Tensor]]:
        with without_gradients():
            self._tapped(self.model.teacher)
        yield self._tapped(self.model.student)

    def des4_passes(self) -> Iterator[list[torch.Tensor]]:
        student, teacher, num = self.model.student, self.model.teacher, self.args.labeled
        with without_gradients():
            stages = teacher.extract_feat(self.joint)
        labeled = teacher.decode_head([stage[:num] for stage in stages])
        with without_gradients(), evaluating(teacher.decode_head):
            teacher.decode_head([stage[num:] for stage in stages])
        yield [student._forward(self.joint), labeled]

    def cps_passes(self) -> Iterator[list[torch.Tensor]]:
        students = [self.model.student1, self.model.student2]
        outputs = [one._forward(self.labeled) for one in students]
        if not self.args.no_cutmix:
            self._label(*students)
        yield outputs + [one._forward(self.weak) for one in students]

    def gps_passes(self) -> Iterator[list[torch.Tensor]]:
        students, teacher = [self.model.student1, self.model.student2], self.model.teacher
        outputs = [one._forward(self.labeled) for one in students]
        if self.args.no_cutmix:
            known = teacher._forward(self.weak)
        else:
            self._label(*students, teacher)
        yield outputs + [one._forward(self.weak) for one in students]
        outputs = [teacher._forward(self.labeled)]
        self._label(*students)
        yield [*outputs, known if self.args.no_cutmix else teacher._forward(self.weak)]

    def prevmatch_passes(self) -> Iterator[list[torch.Tensor]]:
        student, num = self.model.student, self.args.labeled
        with evaluating(student):
            self._label(student, student)
        features = student.extract_feat(self.joint)
        joint = student.decode_head([torch.cat([one, one[num:]]) for one in features])
        yield [joint, student._forward(self.strong)]

    def corrmatch_passes(self) -> Iterator[list[torch.Tensor]]:
        student, num = self.model.student, self.args.unlabeled
        features = student.extract_feat(self.joint)
        logits = student.decode_head([torch.cat([one, one[-num:]]) for one in features])
        outputs = [logits, student.decode_head.correlator(features, logits[:-num])[0]]
        strong = student.extract_feat(self.weak)
        logits = student.decode_head(strong)
        yield [*outputs, logits, student.decode_head.correlator(strong, logits)[0]]

    @without_gradients()
    def _label(self, *networks: torch.nn.Module) -> None:
        for network in networks:
            network._forward(self.weak)

    def _tapped(self, network: torch.nn.Module) -> list[torch.Tensor]:
        output = self.model.forward_network(network, self.joint, tap=True)
        return [output.logits, network.decode_head.projector(output.decoder)]

    def time(self, function) -> float:
        """Seconds of one call. On the CPU, this is process time, which other processes hardly affect."""
        if self.args.device == 'cuda':
            torch.cuda.synchronize()
        clock = time.process_time if self.args.device == 'cpu' else time.perf_counter
        start = clock()
        function()
        if self.args.device == 'cuda':
            torch.cuda.synchronize()
        return clock() - start


def peak_memory(bench: Bench, function) -> float:
    """Peak memory of a call in MiB, without the memory allocated before it."""
    if bench.args.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    events = [
        event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]'
    ]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak / 2**20


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmseg')
    bench = Bench(args)
    contestants = {'passes': bench.passes, 'step': bench.step}
    given = {'channels_last': args.channels_last, 'compile': args.compile}
    switches = {name: True for name, on in given.items() if on}
    switched = f'step with {" and ".join(switches)}'
    if switches:
        contestants[switched] = Bench(args, **switches).step
    seconds = {name: [] for name in contestants}
    for index in range(args.warmup + args.repeats):
        for name, function in contestants.items():
            elapsed = bench.time(function)
            if index >= args.warmup:
                seconds[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    memory = {name: peak_memory(bench, function) for name, function in contestants.items()}
    device = (
        torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU, {args.threads} thread(s)'
    )
    print(
        f'{args.method}{" without CutMix" if args.no_cutmix else ""}, DeepLabv3+ R{args.depth}, '
        f'{args.labeled}+{args.unlabeled} images of {args.size}x{args.size}, '
        f'{device}, torch {torch.__version__}, Python {platform.python_version()}'
        f'{", bfloat16" if args.amp else ""}{", CPU milliseconds" if args.device == "cpu" else ""}\n'
    )
    print('| | ms, median | ms, least | ms, most | peak MiB |')
    print('|---|---|---|---|---|')
    for name, values in seconds.items():
        low, high = min(values) * 1e3, max(values) * 1e3
        print(
            f'| {name} | {medians[name] * 1e3:.1f} | {low:.1f} | {high:.1f} | {memory[name]:.0f} |'
        )
    ratio = medians['step'] / medians['passes']
    print(f'\nstep / passes = {ratio:.3f} (target on CPU: at most {args.target})')
    if switches:
        print(f'{switched} / step = {medians[switched] / medians["step"]:.3f}')
    if args.check and ratio > args.target:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
