"""Predictions of a trained network, from one forward pass or summed over scales and flips."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os.path as osp
import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.utils import stack_batch
from torch import Tensor, nn

from mmseg_semi.datasets.labels import VOID
from mmseg_semi.datasets.meanings import (
    check_checkpoint,
    meaning_of_checkpoint,
    meanings_of_config,
)
from mmseg_semi.models.checkpoints import read_checkpoint
from mmseg_semi.models.matching import (
    network_weights,
    networks_in,
    own_state_dict,
    same_networks,
    told_network,
    training_only,
)
from mmseg_semi.models.segmentors import SemiSegmentor

from .images import BATCH_PIXELS, images_per_batch
from .label_map import LabelMap, merge_classes

#: Replaces VOID as the value of pixels that are not finite, if VOID is a label.
NOT_FINITE = 254
CPU_PIXELS = 1 << 17
"""Pixels per forward pass on a CPU; fewer underuse it, more exceed its caches."""


def checkpoint_digest(path: str) -> str:
    """Return the SHA-256 of a checkpoint file; for a URL, the URL itself.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    if '://' in path:
        return path
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'The checkpoint {path} does not exist. Give the path of a .pth file.'
        )
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Stopwatch:
    """Seconds that a device spends inside ``with`` blocks; CUDA is not synchronized in between."""

    def __init__(self, device: str) -> None:
        self._on_cuda = device.startswith('cuda')
        self._seconds = 0.0
        self._events: list[tuple] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure a ``with`` block."""
        if not self._on_cuda:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._events.append((start, end))

    def seconds(self) -> float:
        """Return the total so far."""
        if self._events:
            torch.cuda.synchronize()
        for start, end in self._events:
            self._seconds += start.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds


class Predictor:
    """The predicting network of a config, with the weights of a checkpoint, in eval mode.

    For a semi-supervised method it is the network ``predict_on``. If the checkpoint has other networks than the
    config, its predicting network is loaded.

    Args:
        cfg: Config with ``model``, stock or of this package.
        path: Path of the checkpoint.
        device: torch device.
        label_map: Predict a student's classes instead of the network's. The network's class names are then not
            compared with those of the config.

    Attributes:
        num_classes (int): C, of the network or the student.
        may_ignore (bool): Whether masks may have void pixels, from classes that ``label_map`` ignores.
        ignore_index (int): Void label of the network's heads.
        classes (list[str], optional): Names of the network's own classes, if known.
        dataset_meta (dict): Classes and palette of the checkpoint, if it has them.
        meta_of_labels (dict): Classes and palette of the masks (with a label map, the student's).
        in_network (Stopwatch): Time within the network.

    Raises:
        ValueError: The file is not a checkpoint; its network or classes differ from the config's; or the
            network has one channel for two classes.
    """

    def __init__(
        self, cfg: Config, path: str, device: str, label_map: LabelMap | None = None
    ) -> None:
        init_default_scope(cfg.get('default_scope') or 'mmseg')
        self.path = path
        checkpoint = read_checkpoint(path)
        if label_map is None:
            check_checkpoint(checkpoint, path, cfg)
        model = MODELS.build(copy.deepcopy(cfg.model))
        self._network = model.predictor if isinstance(model, SemiSegmentor) else model
        self._preprocessor = model.data_preprocessor.to(device)
        _check_channels(self._network)
        _load_weights(self._network, _weights_of(model, checkpoint), path)
        self._network = self._network.to(device).eval().requires_grad_(False)
        self.num_classes = self._network.out_channels
        self.dataset_meta = checkpoint.get('meta', {}).get('dataset_meta') or {}
        self.meta_of_labels, self._indices = self.dataset_meta, None
        self._label_map = label_map
        self.classes = known_classes(checkpoint, cfg, self.num_classes)
        if label_map is not None:
            self._indices = label_map.indices(self.classes, self.num_classes, path)
            self.meta_of_labels = label_map.meta()
            self.num_classes = len(label_map.classes)
        self.may_ignore = VOID in (self._indices or ())
        head = self._network.decode_head
        # In a cascade, the last head predicts.
        self.ignore_index = (head[-1] if isinstance(head, nn.ModuleList) else head).ignore_index
        self.in_network = Stopwatch(device)
        self._device = device

    @property
    def not_finite(self) -> int:
        """Value in :meth:`masks`, without a threshold, for pixels whose output is not finite."""
        return VOID if self._indices is None else NOT_FINITE

    def told(self) -> str | None:
        """Describe the label map in one line; None without one."""
        return self._label_map and self._label_map.told(self._indices, self.classes)

    def prepare(self, samples: Sequence[dict]) -> Tensor:
        """Normalize loaded samples of one size; padding depends on the scale and is applied later.

        Returns:
            Tensor: (N, 3, h, w) float32 on the device.
        """
        data = {key: [sample[key] for sample in samples] for key in ('inputs', 'data_samples')}
        height, width = data['inputs'][0].shape[-2:]
        images = self._preprocessor(data, False)['inputs']
        return images[..., :height, :width]  # padding is at the bottom and at the right

    @torch.no_grad()
    def masks(
        self,
        images: Tensor,
        size: tuple[int, int],
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        threshold: float = 0.0,
    ) -> Tensor:
        """Label every pixel of the original images.

        With one scale of 1 and no flip this is mmseg's prediction: logits at the input size, resized to the
        original, argmax. Otherwise it is ST++'s: each view is ``images`` rescaled to (int(h s), int(w s)), or
        its flipped copy. The softmax maps of all views are resized to the original size and summed, followed by
        argmax. (Maps of a view and its flipped copy are summed before resizing, which is equivalent since
        resizing is linear.)

        Args:
            images (Tensor): (N, 3, h, w), from `prepare`.
            size (tuple[int, int]): Original (H, W).
            scales (Sequence[float]): Scales of the views.
            flip (bool): Whether to also use each view flipped horizontally.
            threshold (float): Confidence, the largest mean softmax of the views, below which a pixel is void.
                ST++ uses none and compares with one ("pixel-level", 0.5).

        Returns:
            Tensor: (N, H, W) uint8; 255 where the network's output is not finite. With a threshold or a label
            map, see :meth:`labels`.
        """
        if threshold or self._indices is not None:
            return self.labels(self.probs(images, size, scales, flip), threshold)
        if tuple(scales) == (1.0,) and not flip:
            parts = self._parts(len(images), images.shape[-2:])
            return torch.cat(
                [_label(self._resize(self._forward(images[part]), size)) for part in parts]
            )
        return _label(self._scores(images, size, scales, flip))

    @torch.no_grad()
    def probs(
        self,
        images: Tensor,
        size: tuple[int, int],
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> Tensor:
        """Return the mean of the softmax maps of all views, see :meth:`masks`.

        Returns:
            Tensor: (N, C, H, W) float32; with a label map (N, C + 1, H, W): the student's classes, then the sum
            of the ignored classes.
        """
        mean = self._scores(images, size, scales, flip) / (len(scales) * (1 + flip))
        if self._indices is None:
            return mean
        return merge_classes(mean, self._indices, self.num_classes)

    def labels(self, probs: Tensor, threshold: float = 0.0) -> Tensor:
        """Return the most probable class of every pixel from the output of :meth:`probs`.

        Returns:
            Tensor: (N, H, W) uint8; 254 where the probabilities are not finite, 255 where the largest is below
            ``threshold`` or belongs to the ignored classes.
        """
        best, label = probs.max(dim=1)
        void = (best < threshold) | (label == self.num_classes)
        label = label.to(torch.uint8).masked_fill_(void, VOID)
        # Separate values: pixels that are not finite are an error, whatever the threshold.
        return label.masked_fill_(~best.isfinite(), NOT_FINITE)

    @torch.no_grad()
    def confident_labels(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return confidence and pseudo-label of every pixel of the original images.

        Args:
            images (Tensor): (N, 3, h, w), from `prepare`.
            size (tuple[int, int]): Original (H, W), to which the logits are resized.

        Returns:
            tuple[Tensor, Tensor]: Largest softmax value (N, H, W) float32 and its class (N, H, W) int64.
        """
        parts = self._parts(len(images), images.shape[-2:])
        pairs = [
            self._resize(self._forward(images[part]), size).softmax(dim=1).max(dim=1)
            for part in parts
        ]
        return torch.cat([p.values for p in pairs]), torch.cat([p.indices for p in pairs])

    @contextlib.contextmanager
    def measuring_batch_norm(self) -> Iterator[None]:
        """Replace the batch norm statistics by those of the images predicted inside the ``with`` block.

        They are averaged over the batches, each with the same weight.

        Raises:
            ValueError: The network has no batch norm with running statistics.
        """
        norms = [
            module
            for module in self._network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        ]
        if not norms:
            raise ValueError(
                f'the {type(self._network).__name__} has no batch norm whose statistics could be measured. '
                'Leave this out.'
            )
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches
            norm.train()
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()

    def _scores(
        self, images: Tensor, size: tuple[int, int], scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Return the sum of the softmax maps (N, C, H, W) of all views."""
        total = images.new_zeros((len(images), self._network.out_channels, *size))
        for scale in scales:
            view_size = tuple(max(1, int(side * scale)) for side in images.shape[-2:])
            for part in self._parts(len(images), view_size, 1 + flip):
                views = self._resize(images[part], view_size)
                probs = self._pairs(views) if flip else self._forward(views).softmax(dim=1)
                total[part] += self._resize(probs, size)
        return total

    def _pairs(self, views: Tensor) -> Tensor:
        """Return the softmax maps of views plus those of their flipped copies, in one batch if that fits."""
        both = views, views.flip(3)
        if len(self._parts(2 * len(views), views.shape[-2:])) == 1:
            both = (torch.cat(both),)
        probs = torch.cat([self._forward(batch).softmax(dim=1) for batch in both])
        straight, mirrored = probs.chunk(2)
        return mirrored.flip(3).add_(straight)

    def _parts(self, number: int, size: tuple[int, int], views: int = 1) -> list[slice]:
        """Split ``number`` images, with ``views`` views of a size each, into parts for one forward pass."""
        limit = CPU_PIXELS if self._device == 'cpu' else BATCH_PIXELS
        step = max(1, images_per_batch(size, number * views, limit) // views)
        return [slice(start, start + step) for start in range(0, number, step)]

    def _forward(self, images: Tensor) -> Tensor:
        """Return logits (N, C, h, w) float32 of images (N, 3, h, w), whole or by windows (``test_cfg``)."""
        height, width = images.shape[-2:]
        padding = self._preprocessor.test_cfg
        if padding:
            images, _ = stack_batch(
                list(images),
                size=padding.get('size'),
                size_divisor=padding.get('size_divisor'),
                pad_val=self._preprocessor.pad_val,
            )
        shape = tuple(images.shape[-2:])
        meta = dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)
        with self.in_network.running():
            logits = self._network.inference(images, [dict(meta) for _ in range(len(images))])
        return logits[..., :height, :width].float()

    def _resize(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(maps.shape[-2:]) == tuple(size):
            return maps
        return F.interpolate(
            maps, size=size, mode='bilinear', align_corners=self._network.align_corners
        )


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Let cuDNN choose its kernels by rule instead of benchmarking, which would repeat for each image size."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def known_classes(checkpoint: dict, cfg: Config, number: int) -> list[str] | None:
    """Return the class names of a network, from its checkpoint or else from its config; None if unknown.

    Args:
        checkpoint: Checkpoint from `read_checkpoint`.
        cfg: Config of the network.
        number: Number of its classes; lists of names of another length are skipped.
    """
    saved = meaning_of_checkpoint(checkpoint, '')
    found = [] if saved is None else [saved]
    for stage in ('test', 'val', 'train'):
        found += meanings_of_config(cfg, stage)
    return next((list(m.classes) for m in found if len(m.classes) == number), None)


def _label(values: Tensor) -> Tensor:
    """Return the index of the largest value (N, C, H, W) as uint8 (N, H, W); void where that is not finite."""
    best, label = values.max(dim=1)  # the first of equal values, like argmax, but 4 times faster
    return label.to(torch.uint8).masked_fill_(~best.isfinite(), VOID)


def _check_channels(network: nn.Module) -> None:
    if not hasattr(network, 'inference') or not hasattr(network, 'out_channels'):
        raise ValueError(
            f'{type(network).__name__} has no inference() that gives logits, so nothing can be pseudo-labeled '
            'with it. Use an EncoderDecoder or a network derived from it.'
        )
    if network.out_channels == 1:
        raise ValueError(
            'decode_head has out_channels=1, but pseudo-labels need one channel per class. Set '
            'out_channels=num_classes (and num_classes=2 for an object and its background) and train again.'
        )
    if network.out_channels > VOID:
        raise ValueError(
            f'decode_head has {network.out_channels} classes, but a mask of 8 bits holds at most {VOID} beside '
            'the void value 255.'
        )


def _weights_of(model: nn.Module, checkpoint: dict) -> dict[str, Tensor]:
    """Return the weights of the predicting network from a checkpoint of any method or a plain network."""
    names = networks_in(own_state_dict(checkpoint))
    if isinstance(model, SemiSegmentor) and same_networks(model.networks, names):
        return network_weights(checkpoint, model.semi_test_cfg['predict_on'])[0]
    weights, network = network_weights(checkpoint)
    if network is not None:
        line = told_network(checkpoint, network, type(model).__name__)
        print_log(line, logger='current')
    return weights


def _load_weights(network: nn.Module, weights: dict[str, Tensor], path: str) -> None:
    """Load all weights of a network."""
    problem = None
    try:
        differing = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a size mismatch
        problem = ' '.join(str(error).splitlines()[1].split()).rstrip('.')
    else:
        # Checkpoints may lack counters, auxiliary heads and weights that only training needs, or have more of
        # them.
        optional = ('num_batches_tracked', 'auxiliary_head', *training_only())
        for words, keys in (
            ('are missing', differing.missing_keys),
            ('are not in it', differing.unexpected_keys),
        ):
            keys = [key for key in keys if not any(part in key for part in optional)]
            if keys:
                problem = f'{len(keys)} weights {words}, e.g. {keys[0]}'
                break
    if problem:
        raise ValueError(
            f'{path} does not fit the network of the config ({problem}). Give a checkpoint that this config '
            'has trained, with the same classes.'
        )
