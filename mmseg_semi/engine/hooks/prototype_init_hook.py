"""Initialize the prototypes of all parts from the labeled images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch import Tensor

from ...functional.prototypes import cluster_centers
from ...functional.resizing import resize_nearest
from ...models.clock import Clock
from ...models.segmentors.esl import ESL
from ...self_training.output import on_first_rank
from ._common import unwrap
from ._labeled_images import image_and_label, labeled_images, own_share


@HOOKS.register_module()
class PrototypeInitHook(Hook):
    """Cluster the teacher encoder's features of each class into its parts (ESL, text before Eq. 7).

    It runs before the first iteration that needs prototypes, which is the start of the training with
    ``unlabeled_start=0``. The labeled images are read once without augmentation, distributed over the ranks.
    Rank 0 clusters each class from a sample of its pixels. The sample depends on the seed and the images, but
    not on the number of ranks. The other ranks wait, so ``env_cfg.dist_cfg.timeout`` (in seconds) must be long
    enough. The result is stored in buffers of the model. A resumed run, or one that loads a checkpoint of the
    method, skips the pass. The pass does not change the random state of the training.

    Args:
        max_pixels (int): Maximum pixels per class in the clustering, at the resolution of the encoder.
        seed (int): Seed of the sampling of pixels and of the clustering.
        pipeline (list, optional): Transforms that load and pack a labeled image. Default: the transforms of the
            labeled pipeline that load, check, resize to a fixed size and pack, without random resize, crop or
            flip. If the scale in training differs much from that of the images, set a pipeline with ``Resize``.
        num_workers (int, optional): Workers of the loader. Default: same as in training.

    Raises:
        ValueError: The model has no parts, or the data are not labeled.
    """

    # After MeanTeacherHook, which sets the teacher's weights.
    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        max_pixels: int = 10000,
        seed: int = 0,
        pipeline: list | None = None,
        num_workers: int | None = None,
    ) -> None:
        if max_pixels < 1:
            raise ValueError(f'max_pixels must be at least 1, got {max_pixels}.')
        if seed < 0:
            raise ValueError(f'seed must be at least 0, got {seed}.')
        self.max_pixels = max_pixels
        self.seed = seed
        self.pipeline = pipeline
        self.num_workers = num_workers

    @property
    def reading(self) -> str:
        """The clustering, for the first lines of the log."""
        return f'k-means of at most {self.max_pixels} pixels per class, seed {self.seed}'

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, ESL):
            raise ValueError(
                f'PrototypeInitHook does not support {type(model).__name__}, which has no parts. Remove the '
                'hook from custom_hooks.'
            )
        self._dataset = labeled_images(runner, self, self.pipeline)
        # Read once, since reading the buffer in a step would wait for the device.
        self._done = not model.contrasts or bool(model.contrast.prototypes.ready)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        model = unwrap(runner.model)
        step = Clock.of(runner.optim_wrapper).step
        if self._done or step < model.unlabeled_start:
            return
        self._done = True
        dataset = self._dataset
        runner.logger.info(
            f'Reading {len(dataset)} labeled images once to initialize the parts of the classes.'
        )
        samples = self._collect(runner, model, dataset)
        found = []
        for label, sample in enumerate(samples):
            centers = self._cluster(model, sample)
            model.contrast.prototypes.start(label, centers)
            found.append(len(centers))
        model.contrast.prototypes.ready.fill_(True)
        classes = dataset.metainfo.get('classes') or range(model.num_classes)
        absent = [name for name, number in zip(classes, found, strict=True) if number == 0]
        runner.logger.info(
            f'Parts of each class: {found}.'
            + (f' The labeled images lack {", ".join(map(str, absent))}.' if absent else '')
        )

    @torch.no_grad()
    def _collect(self, runner, model: ESL, dataset) -> list[_Sample]:
        """Sample features of each class from this rank's part of the images."""
        batches = own_share(runner, dataset, self.num_workers)
        samples = [_Sample(self.max_pixels) for _ in range(model.num_classes)]
        for index, batch in zip(batches.dataset.indices, batches, strict=True):
            image, label = image_and_label(model, batch)
            features = model.encode(image)
            label = resize_nearest(label, features.shape[-2:], model.align_corners)[0].flatten()
            features = features[0].flatten(1).t().float()
            # The keys only depend on the image, so the sample does not depend on the number of ranks.
            keys = torch.from_numpy(np.random.default_rng([self.seed, index]).random(len(label)))
            for number in label.unique().tolist():
                if number < model.num_classes:
                    here = (label == number).nonzero().squeeze(1)
                    samples[number].add(keys[here.cpu()], features[here])
        return samples

    def _cluster(self, model: ESL, sample: _Sample) -> Tensor:
        """Compute the centers of one class on rank 0 from the samples of all ranks."""
        gathered = _Sample(self.max_pixels)
        for keys, features in all_gather_object(sample.content()):
            gathered.add(keys, features)
        # An error on rank 0, such as non-finite features, must be raised on all ranks.
        return on_first_rank(self._centers, model, gathered).to(model.contrast.prototypes.vectors)

    def _centers(self, model: ESL, gathered: _Sample) -> Tensor:
        vectors = model.contrast.prototypes.vectors
        _, features = gathered.content()
        if not len(features):
            return torch.zeros(0, vectors.shape[2])
        if model.cfg.normalize_encoder:
            features = F.normalize(features, dim=1)
        return cluster_centers(features, vectors.shape[1], seed=self.seed).cpu()


class _Sample:
    """Sample of at most ``size`` features of a class: those with the smallest random keys."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._chunks: list[tuple[Tensor, Tensor]] = []
        self._limit = float('inf')

    def add(self, keys: Tensor, features: Tensor) -> None:
        """Add features (M, D) on any device with float64 keys (M,) on the host."""
        near = (keys < self._limit).nonzero().squeeze(1)
        self._chunks.append((keys[near], features[near.to(features.device)].cpu()))
        # Not at each call, which would copy all features for every image.
        if sum(len(chunk) for chunk, _ in self._chunks) > 2 * self.size:
            self.content()

    def content(self) -> tuple[Tensor, Tensor]:
        """Return keys and features sorted by key."""
        if not self._chunks:
            return torch.empty(0, dtype=torch.float64), torch.empty(0, 0)
        keys, features = (
            torch.cat([chunk[i] for chunk in self._chunks if len(chunk[0])] or [self._chunks[0][i]])
            for i in (0, 1)
        )
        order = keys.argsort()[: self.size]
        self._chunks = [(keys[order], features[order])]
        if len(order) == self.size:
            self._limit = float(self._chunks[0][0][-1])
        return self._chunks[0]
