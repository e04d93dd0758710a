"""Initialize the prototypes of all classes from the labeled images."""

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

    It implements ``prototype_init='labeled_set'``. Before training, the teacher processes a center crop of each
    labeled image in the crop size of the training, distributed over the ranks. The decoder normalizes by the
    statistics of the batch, as in training: of the rank's batch, or with SyncBN of the batches of all ranks. A
    batch has the same number of labeled images as in training, but at least 2. With batch normalization in the
    decoder, the prototypes therefore depend on the number of ranks. Running statistics do not change. A resumed
    run, or one that loads a checkpoint with prototypes, skips the pass. The pass does not change the random
    state of the training.

    Args:
        pipeline (list, optional): Transforms that load and pack a labeled image. Default: the transforms of the
            labeled pipeline that load, check, resize to a fixed size and pack, without random resize, crop and
            flip. The center crop follows in both cases.
        num_workers (int, optional): Workers of the loader. Default: same as in training.

    Raises:
        ValueError: The model does not support it, the data are not labeled, or a process has fewer than 2
            labeled images.
    """

    # After MeanTeacherHook, which sets the teacher's weights.
    priority = 'BELOW_NORMAL'

    def __init__(self, pipeline: list | None = None, num_workers: int | None = None) -> None:
        self.pipeline = pipeline
        self.num_workers = num_workers

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, DeS4) or model.cfg.prototype_init != 'labeled_set':
            raise ValueError(
                f'PrototypeMeanHook does not support {type(model).__name__} without '
                "prototype_init='labeled_set'. Set it in semi_train_cfg, or remove the hook from custom_hooks."
            )
        if model.teacher.decode_head.conv_seg.seen.any():
            return
        dataset = labeled_images(runner, self, self.pipeline)
        size = crop_size(runner.train_dataloader.dataset.labeled)
        batch_size = max(2, runner.train_dataloader.sampler.labeled)
        loader = own_batches(runner, CenterCrop(dataset, size), batch_size, self.num_workers)
        cropped = 'uncropped' if size is None else f'center crops of {size[0]}x{size[1]} pixels'
        runner.logger.info(
            f'Initializing the prototypes from {len(dataset)} labeled images ({cropped}), in batches of '
            f'{batch_size}.'
        )
        found = start_prototypes(model, (training_batch(model, batch, size) for batch in loader))
        runner.logger.info(f'{found} of {model.num_classes} classes have a prototype.')


@without_gradients()
def start_prototypes(model: DeS4, images: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Set the prototypes to the teacher's mean features of the labeled images of all ranks.

    The decoder normalizes by the statistics of each batch, as in training. Its running statistics are not
    trained yet, and prototypes computed with them would not match the features in training.

    Args:
        model (DeS4): The model. Its running statistics do not change.
        images (iterable): This rank's batches of at least 2 normalized images (B, 3, H, W) and int64 labels
            (B, H, W), 255 = void. SyncBN needs the same number of batches on each rank.

    Returns:
        int: Number of classes with a prototype.
    """
    with evaluating(model.teacher), batch_statistics(model.teacher.decode_head):
        return model.equalizer.start_all(
            (model.forward_network(model.teacher, image, tap=True).decoder, label)
            for image, label in images
        )
