"""The first prototypes of all classes, from one pass over the labeled images."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from torch import Tensor

from ...datasets import crop_size
from ...models.gradients import without_gradients
from ...models.segmentors.des4 import DeS4
from ...models.segmentors.networks import batch_statistics, evaluating
from ._common import unwrap
from ._labeled_images import CenterCrop, labeled_images, own_batches, training_batch


@HOOKS.register_module()
class PrototypeMeanHook(Hook):
    """Set each class's prototype to its mean feature over all labeled images (DeS4).

    For ``prototype_init='labeled_set'``. Before training, the center of each labeled image passes the teacher
    once, at the size of the training's crops and shared over the ranks. The decoder normalizes by the
    statistics of the batch, as in training: of the rank's batch, or with SyncBN of all ranks' batches. A batch
    has as many images as the training has labeled ones on a rank, and at least 2. So the prototypes depend on
    the number of ranks where the decoder has batch normalization, and not otherwise. Running statistics stay
    as they were. A resumed run, or one that loads a checkpoint with prototypes, skips the pass. No random
    number of the training is drawn.

    Args:
        pipeline (list, optional): Transforms that load and pack a labeled image. Default: those of the
            labeled pipeline that load, check, resize to a fixed size and pack, so without random resize,
            crop and flip. The crop of the center follows both.
        num_workers (int, optional): Of the pass's loader. Default: as many as the training's.

    Raises:
        ValueError: The model or its data do not fit, or a process has fewer than 2 labeled images.
    """

    # After MeanTeacherHook, which gives the teacher its weights.
    priority = 'BELOW_NORMAL'

    def __init__(self, pipeline: list | None = None, num_workers: int | None = None) -> None:
        self.pipeline = pipeline
        self.num_workers = num_workers

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, DeS4) or model.cfg.prototype_init != 'labeled_set':
            raise ValueError(
                f"PrototypeMeanHook found a {type(model).__name__} without prototype_init='labeled_set'. Set "
                'it in semi_train_cfg, or remove the hook from custom_hooks.'
            )
        if model.teacher.decode_head.conv_seg.seen.any():
            return
        dataset = labeled_images(runner, self, self.pipeline)
        size = crop_size(runner.train_dataloader.dataset.labeled)
        batch_size = max(2, runner.train_dataloader.sampler.labeled)
        loader = own_batches(runner, CenterCrop(dataset, size), batch_size, self.num_workers)
        cropped = 'as they are' if size is None else f'their centers of {size[0]}x{size[1]} pixels'
        runner.logger.info(
            f'{len(dataset)} labeled images, {cropped}, set the first prototypes in batches of {batch_size}.'
        )
        found = start_prototypes(model, (training_batch(model, batch, size) for batch in loader))
        runner.logger.info(f'{found} of {model.num_classes} classes have a prototype.')


@without_gradients()
def start_prototypes(model: DeS4, images: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Set the prototypes to the teacher's mean features of labeled images, this rank's share of all.

    The decoder normalizes by the statistics of each batch, as in training. Before the training its running
    statistics are of no image yet, and prototypes made with them would not fit the features that are trained.

    Args:
        model (DeS4): Its running statistics end as they were.
        images (iterable): Batches of at least 2 normalized images (B, 3, H, W) and int64 labels (B, H, W),
            255 = void; with SyncBN equally many batches on each rank.

    Returns:
        int: How many classes have a prototype now.
    """
    with evaluating(model.teacher), batch_statistics(model.teacher.decode_head):
        return model.equalizer.start_all(
            (model.forward_network(model.teacher, image, tap=True).decoder, label)
            for image, label in images
        )
