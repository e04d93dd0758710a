"""The first prototypes of all classes, from one pass over the labelled images."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.segmentors.des4 import DeS4
from ._common import unwrap
from ._labeled_images import image_and_label, labeled_images, own_share


@HOOKS.register_module()
class PrototypeMeanHook(Hook):
    """Set each class's prototype to its mean feature over all labelled images (DeS4).

    For ``prototype_init='labeled_set'``. Before training, the labelled images pass the teacher once, as they
    are and shared over the ranks. A resumed run, or one that loads a checkpoint with prototypes, skips it. No
    random number of the training is drawn.

    Args:
        pipeline (list, optional): Transforms that load and pack a labelled image. Default: those of the
            labelled pipeline that load, check and pack, so without resize, crop and flip.
        num_workers (int, optional): Of the pass's loader. Default: as many as the training's.

    Raises:
        ValueError: The model or its data do not fit.
    """

    # After MeanTeacherHook, which gives the teacher its weights.
    priority = 'BELOW_NORMAL'

    def __init__(self, pipeline: list | None = None, num_workers: int | None = None) -> None:
        self.pipeline = pipeline
        self.num_workers = num_workers

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, DeS4) or model.semi_train_cfg['prototype_init'] != 'labeled_set':
            raise ValueError(
                f"PrototypeMeanHook found a {type(model).__name__} without prototype_init='labeled_set': set "
                'it in semi_train_cfg, or remove the hook from custom_hooks.'
            )
        if model.teacher.decode_head.conv_seg.seen.any():
            return
        dataset = labeled_images(runner, self, self.pipeline)
        runner.logger.info(f'{len(dataset)} labelled images set the first prototypes.')
        loader = own_share(runner, dataset, self.num_workers)
        with torch.no_grad():
            found = model.start_prototypes(image_and_label(model, batch) for batch in loader)
        runner.logger.info(f'{found} of {model.num_classes} classes have a prototype.')
