"""Compare the time and memory of functions in `mmseg_semi.functional` with common implementations.

Each case has a common implementation, ours, and the outputs that must be equal, which are checked before the
measurement. Both run alternately in one process, so that other load on the machine slows both, and the
medians are compared. Memory is the peak without the inputs.

    python benchmarks/kernels.py                       # all, on the CPU with one thread
    python benchmarks/kernels.py --device cuda --size 769 --only cross_entropy paste
    python benchmarks/kernels.py --check               # exit status 1 if a target is missed

To add a function, add a `Case` to `CASES`.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_semi.functional import (
    agreement,
    losses,
    mixing,
    parts,
    pseudo_label,
    sampling,
    soft_label,
)


@dataclass
class Setting:
    """The sizes of a run."""

    device: str = 'cpu'
    batch: int = 8
    classes: int = 21
    size: int = 513
    seed: int = 0

    @property
    def stride_size(self) -> int:
        """Side of a decoder's logits at stride 4: 129 for 513."""
        return (self.size - 1) // 4 + 1

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass
class Case:
    """One kernel: `usual` and `ours` take the output of `inputs` and return tensors to compare."""

    name: str
    what: str
    inputs: Callable[[Setting], Sequence]
    usual: Callable[..., object]
    ours: Callable[..., object]
    speed_target: float | None = None
    memory_target: float | None = None
    tolerance: dict = field(default_factory=lambda: dict(rtol=1e-5, atol=1e-6))
    measure_memory: bool = False
    #: Share of integers that may differ, because nearly equal values can be rounded differently.
    mismatches: float = 0


# --- Inputs --------------------------------------------------------------------------------------


def smooth_logits(s: Setting, generator: torch.Generator) -> Tensor:
    """Logits with regions, as a network's are, at stride 4."""
    coarse = torch.randn(s.batch, s.classes, 12, 12, generator=generator) * 5
    coarse[:, 0] += 4  # a background that fills half of the image
    side = (s.stride_size, s.stride_size)
    noise = torch.randn(s.batch, s.classes, *side, generator=generator) * 0.3
    return F.interpolate(coarse, side, mode='bicubic') + noise


def prediction(s: Setting, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits = smooth_logits(s, generator)
    confidence, label = pseudo_label.confidence_and_label(logits, s.size)
    return confidence.to(s.device), label.to(s.device)


def logits_only(s: Setting):
    return smooth_logits(s, s.generator()).to(s.device), s.size


def two_predictions(s: Setting):
    generator = s.generator()
    confidence_s, label_s = prediction(s, generator)
    confidence_t, label_t = prediction(s, generator)
    agree = torch.rand(label_s.shape, generator=generator).to(s.device) < 0.7
    return label_s, confidence_s, torch.where(agree, label_s, label_t), confidence_t, s.classes


def images_and_boxes(s: Setting):
    generator = s.generator()
    images = torch.randn(s.batch, 3, s.size, s.size, generator=generator).to(s.device)
    bases = images, *prediction(s, generator)
    boxes = mixing.sample_boxes(s.batch, s.size, style='unimatch', generator=generator)
    boxes = boxes.to(s.device)
    mask = mixing._box_mask(boxes[:, None], s.size, s.size)
    return bases, [x.flip(0) for x in bases], boxes, mask


def entropy_and_quota(s: Setting):
    """Every pixel of a batch of decoder's features, 133 thousand by default."""
    generator = s.generator()
    logits = smooth_logits(s, generator)
    label = (logits + torch.randn(logits.shape, generator=generator)).argmax(dim=1).flatten()
    label[::50] = 255
    counts = torch.bincount(label[label != 255], minlength=s.classes)
    quota = sampling.class_quota(sampling.class_ratio(counts), counts)
    entropy = sampling.entropy(logits.softmax(dim=1)).flatten()
    return entropy.to(s.device), label.to(s.device), quota.to(s.device)


def logits_and_label(s: Setting):
    generator = s.generator()
    logits = smooth_logits(s, generator).to(s.device)
    label = prediction(s, generator)[1]
    label[torch.rand(label.shape, generator=generator).to(s.device) < 0.05] = 255
    return logits, label


def logits_and_probs(s: Setting):
    generator = s.generator()
    logits, target = smooth_logits(s, generator), smooth_logits(s, generator)
    target = F.interpolate(target, (s.size, s.size), mode='bilinear').softmax(1)
    return logits.to(s.device), target.to(s.device)


def contrast(s: Setting):
    """ESL's: two anchors per row of the image (1026 for 513), 255 negatives each, a full bank."""
    generator = s.generator()
    anchors, positives = (torch.randn(2 * s.size, 512, generator=generator) for _ in range(2))
    bank = torch.randn(s.classes * 5 * 200, 512, generator=generator)
    negatives = torch.randint(0, len(bank), (2 * s.size, 255), generator=generator)
    return tuple(x.to(s.device) for x in (anchors, positives, bank, negatives))


def student_and_teacher(s: Setting):
    generator = s.generator()
    return (
        smooth_logits(s, generator).to(s.device),
        smooth_logits(s, generator).to(s.device),
        s.size,
    )


def encoder_and_label(s: Setting):
    """ESL's: 2048 channels at stride 8, labels at the decoder's stride 4, five parts; four images."""
    generator = s.generator()
    images = min(s.batch, 4)
    side = (s.size - 1) // 8 + 1
    features = torch.randn(images, 2048, side, side, generator=generator).relu_()
    prototypes = torch.randn(s.classes, 5, 2048, generator=generator).relu_()
    label = smooth_logits(s, generator)[:images].argmax(1)
    return tuple(x.to(s.device) for x in (features, label, prototypes))


def projected_and_parts(s: Setting):
    """ESL's: 512 channels at stride 4, five parts; four images."""
    generator = s.generator()
    label = smooth_logits(s, generator)[: min(s.batch, 4)].argmax(1)
    features = torch.randn(len(label), 512, *label.shape[1:], generator=generator)
    part = torch.randint(0, 5, label.shape, generator=generator)
    return tuple(x.to(s.device) for x in (features, label, part)) + (s.classes, 5)


def checkpoint_masks(s: Setting):
    return [torch.stack([two_predictions(s)[i][0] for i in (0, 2, 0)]), s.classes]


# --- Usual forms ---------------------------------------------------------------------------------


def usual_confidence_and_label(logits, size):
    full = F.interpolate(logits, (size, size), mode='bilinear')
    return full.softmax(dim=1).max(dim=1)[0], full.argmax(dim=1)


def usual_hardness_one_hot(label_s, confidence_s, label_t, confidence_t, num_classes):
    one, two = (F.one_hot(x, num_classes).float() for x in (label_s, label_t))
    both = (one * two).sum(dim=(1, 2))
    n_s, n_t = one.sum(dim=(1, 2)), two.sum(dim=(1, 2))
    iou = both / (n_s + n_t - both).clamp(min=1)
    pixels = label_s[0].numel()
    agree_s, agree_t = (n_s / pixels * iou).sum(1), (n_t / pixels * iou).sum(1)
    rho_s, rho_t = (x.ge(0.95).float().mean(dim=(1, 2)) for x in (confidence_s, confidence_t))
    return 1 - (rho_s / 2 * agree_s + rho_t / 2 * agree_t)


def numpy_histogram(first: np.ndarray, second: np.ndarray, num_classes: int) -> np.ndarray:
    mask = (first >= 0) & (first < num_classes)
    key = num_classes * first[mask].astype(int) + second[mask].astype(int)
    return np.bincount(key, minlength=num_classes**2).reshape(num_classes, num_classes)


def usual_hardness_numpy(label_s, confidence_s, label_t, confidence_t, num_classes):
    def weighted(first, second):
        out = []
        for a, b in zip(first.cpu().numpy(), second.cpu().numpy(), strict=True):
            counts = numpy_histogram(a, b, num_classes)
            both, n = np.diag(counts), counts.sum(1)
            iou = both / np.maximum(n + counts.sum(0) - both, 1)
            out.append((iou * n / n.sum()).sum())
        return torch.tensor(out, dtype=torch.float32).to(label_s.device)

    agree_s, agree_t = weighted(label_s, label_t), weighted(label_t, label_s)
    rho_s, rho_t = (x.ge(0.95).float().mean(dim=(1, 2)) for x in (confidence_s, confidence_t))
    return 1 - (rho_s / 2 * agree_s + rho_t / 2 * agree_t)


def usual_paste(bases, patches, _, mask):
    mixed = []
    for base, patch in zip(bases, patches, strict=True):
        out, chosen = base.clone(), mask if base.dim() == 3 else mask[:, None].expand_as(base)
        out[chosen] = patch[chosen]
        mixed.append(out)
    return mixed


def usual_cross_entropy(logits, label):
    logits = logits.detach().requires_grad_()
    full = F.interpolate(logits, label.shape[-2:], mode='bilinear')
    value = F.cross_entropy(full, label, ignore_index=255)
    value.backward()
    return value.detach(), logits.grad


def usual_ohem(logits, label):
    logits = logits.detach().requires_grad_()
    full = F.interpolate(logits, label.shape[-2:], mode='bilinear')
    valid = label != 255
    target = label * valid
    prob = full.softmax(1).gather(1, target[:, None])[:, 0].masked_fill(~valid, 1)
    threshold = prob.detach().flatten().sort().values[min(100000, prob.numel()) - 1].clamp(min=0.7)
    target = target.masked_fill(~(valid & (prob <= threshold)), 255)
    value = F.cross_entropy(full, target, ignore_index=255)
    value.backward()
    return value.detach(), logits.grad


def usual_soft_cross_entropy(logits, target):
    logits = logits.detach().requires_grad_()
    full = F.interpolate(logits, target.shape[-2:], mode='bilinear')
    value = -(target * full.log_softmax(1)).sum(1).mean((1, 2))
    value.mean().backward()
    return value.detach(), logits.grad


def usual_soft_label_cross_entropy(logits, teacher, size):
    logits = logits.detach().requires_grad_()
    probs = F.interpolate(teacher, (size, size), mode='bilinear').softmax(1)
    falling = probs.sort(dim=1, descending=True).values
    last = (falling.cumsum(1) < 0.95).sum(1, keepdim=True).clamp(max=probs.shape[1] - 1)
    kept = torch.where(probs >= falling.gather(1, last), probs, 0)
    target = kept / kept.sum(1, keepdim=True)
    full = F.interpolate(logits, (size, size), mode='bilinear')
    value = -(target * full.log_softmax(1)).sum(1).mean((1, 2))
    value.mean().backward()
    return value.detach(), logits.grad


def usual_assign_parts(features, label, prototypes):
    full = F.interpolate(F.normalize(features, dim=1), label.shape[1:], mode='bilinear')
    prototypes = F.normalize(prototypes, dim=2)
    part = torch.zeros_like(label)
    for c in label.unique().tolist():
        cosine = torch.einsum('ndhw,kd->nkhw', full, prototypes[c])
        part = torch.where(label == c, cosine.argmax(1), part)
    return part


def usual_masked_average_pool(features, label, part, num_classes, num_parts):
    means, counts = [], []
    for c in range(num_classes):
        for k in range(num_parts):
            mask = ((label == c) & (part == k))[:, None].to(features.dtype)
            counts.append(mask.sum((1, 2, 3)))
            means.append((features * mask).sum((2, 3)) / counts[-1].clamp(min=1)[:, None])
    shape = (len(label), num_classes, num_parts)
    return torch.stack(means, 1).view(*shape, -1), torch.stack(counts, 1).view(shape)


def usual_info_nce(anchors, positives, bank, negatives):
    anchors = anchors.detach().requires_grad_()
    others = torch.cat([positives[:, None], bank[negatives]], dim=1)
    cosine = torch.cosine_similarity(anchors[:, None], others, dim=2)
    value = F.cross_entropy(cosine / 0.5, negatives.new_zeros(len(anchors)))
    value.backward()
    return value.detach(), anchors.grad


def usual_multi_entropy_sample(entropy, label, quota, num_zones=5, alpha=0.1):
    drawn = []
    for c in range(len(quota)):
        inside = label == c
        if not inside.any():
            continue
        low, high = entropy[inside].min(), entropy[inside].max()
        width = (high - low) / num_zones
        zones, ratio = [], []
        for z in range(num_zones):
            above = entropy >= low + z * width
            below = (entropy < low + (z + 1) * width) if z < num_zones - 1 else inside
            zone = inside & above & below
            zones.append(zone.nonzero().flatten())
            ratio.append(1 / (alpha + entropy[zone].mean()) if len(zones[-1]) else low * 0)
        available = torch.tensor([len(zone) for zone in zones], device=label.device)
        take = sampling.zone_quota(torch.stack(ratio), int(quota[c]), available)
        for zone, number in zip(zones, take.tolist(), strict=True):
            drawn.append(zone[torch.randperm(len(zone), device=label.device)[:number]])
    return torch.bincount(label[torch.cat(drawn)], minlength=len(quota))


def usual_stability(masks, num_classes):
    total = 0.0
    masks = masks.cpu().numpy()
    for mask in masks[:-1]:
        counts = numpy_histogram(masks[-1], mask, num_classes)
        both = np.diag(counts)
        with np.errstate(invalid='ignore'):
            total += np.nanmean(both / (counts.sum(0) + counts.sum(1) - both))
    return torch.tensor(total)


# --- Ours ----------------------------------------------------------------------------------------


def our_hardness(label_s, confidence_s, label_t, confidence_t, num_classes):
    return agreement.hardness(
        label_s, confidence_s, label_t, confidence_t, tau=0.95, num_classes=num_classes
    )


def our_paste(bases, patches, boxes, _):
    return [mixing.paste(x, y, boxes) for x, y in zip(bases, patches, strict=True)]


def our_cross_entropy(logits, label):
    logits = logits.detach().requires_grad_()
    value = losses.cross_entropy(logits, label)
    value.backward()
    return value.detach(), logits.grad


def our_ohem(logits, label):
    logits = logits.detach().requires_grad_()
    value = losses.ohem_cross_entropy(logits, label)
    value.backward()
    return value.detach(), logits.grad


def our_soft_cross_entropy(logits, target):
    logits = logits.detach().requires_grad_()
    value = losses.soft_cross_entropy(logits, target)
    value.mean().backward()
    return value.detach(), logits.grad


def our_soft_label_cross_entropy(logits, teacher, size):
    logits = logits.detach().requires_grad_()
    value, _ = soft_label.soft_label_cross_entropy(
        logits, teacher, (size, size), lambda probs: soft_label.dominant_soft_label(probs, 0.95)
    )
    value.mean().backward()
    return value.detach(), logits.grad


def our_assign_parts(features, label, prototypes):
    return parts.assign_parts(features, label, prototypes)


def our_info_nce(anchors, positives, bank, negatives):
    anchors = anchors.detach().requires_grad_()
    value = losses.info_nce(anchors, positives, bank, negatives, 0.5)
    value.backward()
    return value.detach(), anchors.grad


def our_stability(masks, num_classes):
    return torch.tensor(agreement.stability(masks, num_classes))


def our_multi_entropy_sample(entropy, label, quota):
    drawn = sampling.multi_entropy_sample(entropy, label, quota)
    return torch.bincount(label[drawn], minlength=len(quota))


def our_multi_entropy_mask(entropy, label, quota):
    """The form that a training step uses: nothing waits for the device."""
    drawn, _ = sampling.multi_entropy_mask(entropy, label, quota)
    return torch.bincount(label[drawn], minlength=len(quota))


# A gradient is a sum of thousands of float32 terms, so different orders of summation differ more.
GRADIENT = dict(rtol=1e-3, atol=1e-7)

CASES = [
    Case(
        'confidence_and_label',
        'softmax, maximum and a second argmax of the batch',
        logits_only,
        usual_confidence_and_label,
        pseudo_label.confidence_and_label,
        speed_target=3,
        measure_memory=True,
    ),
    Case(
        'hardness',
        'one-hot maps',
        two_predictions,
        usual_hardness_one_hot,
        our_hardness,
        speed_target=15,
        measure_memory=True,
    ),
    Case(
        'hardness_numpy',
        'two numpy histograms per image',
        two_predictions,
        usual_hardness_numpy,
        our_hardness,
    ),
    Case(
        'paste',
        'boolean indexing of images, labels, confidences',
        images_and_boxes,
        usual_paste,
        our_paste,
        speed_target=5,
    ),
    Case(
        'cross_entropy',
        'upsample and cross-entropy of the batch, forward and backward',
        logits_and_label,
        usual_cross_entropy,
        our_cross_entropy,
        speed_target=1.5,
        memory_target=1 / 4,
        tolerance=GRADIENT,
        measure_memory=True,
    ),
    Case(
        'ohem_cross_entropy',
        'upsample, softmax, sort, cross-entropy, forward and backward',
        logits_and_label,
        usual_ohem,
        our_ohem,
        tolerance=GRADIENT,
        measure_memory=True,
    ),
    Case(
        'soft_cross_entropy',
        'upsample and log-softmax of the batch, forward and backward',
        logits_and_probs,
        usual_soft_cross_entropy,
        our_soft_cross_entropy,
        tolerance=GRADIENT,
        measure_memory=True,
    ),
    Case(
        'soft_label_cross_entropy',
        'upsample, sort over classes, log-softmax of the batch, forward and backward',
        student_and_teacher,
        usual_soft_label_cross_entropy,
        our_soft_label_cross_entropy,
        speed_target=2.5,
        memory_target=1 / 4,
        tolerance=GRADIENT,
        measure_memory=True,
    ),
    Case(
        'assign_parts',
        'encoder features upsampled, cosines class by class',
        encoder_and_label,
        usual_assign_parts,
        our_assign_parts,
        speed_target=10,
        mismatches=1e-3,
        measure_memory=True,
    ),
    Case(
        'masked_average_pool',
        'a masked sum for each part',
        projected_and_parts,
        usual_masked_average_pool,
        parts.masked_average_pool,
        speed_target=10,
        tolerance=dict(rtol=1e-4, atol=1e-5),
        measure_memory=True,
    ),
    Case(
        'info_nce',
        'gathered negatives and their cosines, forward and backward',
        contrast,
        usual_info_nce,
        our_info_nce,
        speed_target=10,
        tolerance=GRADIENT,
        measure_memory=True,
    ),
    Case(
        'multi_entropy_sample',
        'a loop over classes and zones',
        entropy_and_quota,
        usual_multi_entropy_sample,
        our_multi_entropy_sample,
        speed_target=8,
    ),
    Case(
        'multi_entropy_mask',
        'a loop over classes and zones',
        entropy_and_quota,
        usual_multi_entropy_sample,
        our_multi_entropy_mask,
        speed_target=8,
    ),
    Case(
        'stability',
        'numpy histograms of three masks of one image',
        checkpoint_masks,
        usual_stability,
        our_stability,
    ),
]


# --- Measuring -----------------------------------------------------------------------------------


def synchronize(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def assert_equal(case: Case, setting: Setting, arguments: Sequence) -> None:
    """Raise unless both forms give the same numbers."""
    usual, ours = case.usual(*arguments), case.ours(*arguments)
    usual, ours = (x if isinstance(x, (tuple, list)) else (x,) for x in (usual, ours))
    for index, (expected, result) in enumerate(zip(usual, ours, strict=True)):
        if case.mismatches:
            share = (expected != result).double().mean()
            assert share <= case.mismatches, f'{case.name}, result {index}: {share:.1e} differ'
            continue
        torch.testing.assert_close(
            result,
            expected,
            check_dtype=False,
            msg=lambda text, i=index: f'{case.name}, result {i}: {text}',
            **case.tolerance,
        )


def times(case: Case, setting: Setting, repeats: int) -> tuple[float, float]:
    """Median seconds of the usual form and of ours, run in turn."""
    arguments = case.inputs(setting)
    assert_equal(case, setting, arguments)
    seconds = {case.usual: [], case.ours: []}
    for _ in range(repeats):
        for form, collected in seconds.items():
            gc.collect()
            synchronize(setting.device)
            start = time.perf_counter()
            form(*arguments)
            synchronize(setting.device)
            collected.append(time.perf_counter() - start)
    return statistics.median(seconds[case.usual]), statistics.median(seconds[case.ours])


def peak_bytes(case: Case, setting: Setting, form: str) -> int:
    """Bytes that one run of a form needs at its peak, above its inputs.

    On CUDA the allocator counts them. On the CPU they are the growth of the process's resident
    memory, which misses nothing that a kernel allocates for itself.
    """
    function = {'usual': case.usual, 'ours': case.ours}[form]
    small = Setting(**{**setting.__dict__, 'batch': 1, 'size': 33})
    function(*case.inputs(small))  # the first call loads libraries
    arguments = case.inputs(setting)
    gc.collect()
    if setting.device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(*arguments)
        synchronize(setting.device)
        return torch.cuda.max_memory_allocated() - before
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # resets the peak to the present size
    before = resident('VmHWM')
    function(*arguments)
    return resident('VmHWM') - before


def resident(key: str) -> int:
    with open('/proc/self/status') as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024


def peak_in_fresh_process(case: Case, setting: Setting, threads: int, form: str) -> int | None:
    """`peak_bytes` in a new process, or None if the platform has no /proc."""
    if not setting.device.startswith('cuda') and not os.path.exists('/proc/self/clear_refs'):
        return None
    command = [sys.executable, __file__, '--peak', case.name, form]
    for name in ('device', 'batch', 'classes', 'size', 'seed'):
        command += [f'--{name}', str(getattr(setting, name))]
    command += ['--threads', str(threads)]
    # Large blocks are returned to the system at once, so that the peak does not include cached memory.
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536'}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(run.stdout.split()[-1])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads')
    parser.add_argument('--repeats', type=int, default=7, help='runs of each implementation')
    parser.add_argument('--batch', type=int, default=8, help='images')
    parser.add_argument('--classes', type=int, default=21, help='classes')
    parser.add_argument('--size', type=int, default=513, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of the inputs')
    parser.add_argument('--only', nargs='+', choices=names, metavar='NAME', help=f'of {names}')
    parser.add_argument('--check', action='store_true', help='exit with 1 if a target is missed')
    parser.add_argument('--peak', nargs=2, metavar=('NAME', 'FORM'), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    setting = Setting(options.device, options.batch, options.classes, options.size, options.seed)
    if options.peak:
        name, form = options.peak
        print(peak_bytes(next(case for case in CASES if case.name == name), setting, form))
        return 0

    cases = [case for case in CASES if not options.only or case.name in options.only]
    missed = []
    print(
        f'{setting.batch} images of {setting.size}², {setting.classes} classes, {setting.device}, '
        f'{options.threads} thread(s), median of {options.repeats}, torch {torch.__version__}\n'
    )
    print('| kernel | usual form | usual ms | ours ms | speed-up | target |')
    print('|---|---|---|---|---|---|')
    for case in cases:
        usual, ours = times(case, setting, options.repeats)
        target = '' if case.speed_target is None else f'≥ {case.speed_target:g}×'
        if case.speed_target is not None and usual / ours < case.speed_target:
            missed.append(f'{case.name} speed')
        print(
            f'| {case.name} | {case.what} | {usual * 1e3:.1f} | {ours * 1e3:.1f} '
            f'| {usual / ours:.1f}× | {target} |',
            flush=True,
        )
    print('\n| kernel | usual peak MB | ours peak MB | share | target |')
    print('|---|---|---|---|---|')
    for case in cases:
        if not case.measure_memory:
            continue
        usual, ours = (
            peak_in_fresh_process(case, setting, options.threads, form)
            for form in ('usual', 'ours')
        )
        if usual is None:
            print(f'| {case.name} | not measured on this platform | | | |')
            continue
        target = '' if case.memory_target is None else f'≤ {case.memory_target:.2f}'
        if case.memory_target is not None and ours / usual > case.memory_target:
            missed.append(f'{case.name} memory')
        print(
            f'| {case.name} | {usual / 1e6:.0f} | {ours / 1e6:.0f} | {ours / usual:.2f} '
            f'| {target} |',
            flush=True,
        )
    if missed:
        print(f'\nBelow target: {", ".join(missed)}.')
    return 1 if missed and options.check else 0


if __name__ == '__main__':
    sys.exit(main())
