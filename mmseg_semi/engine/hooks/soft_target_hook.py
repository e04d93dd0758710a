"""Self-training with soft labels of a teacher."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...datasets import SelfTrainingDataset
from ...models.segmentors import SemiSegmentor
from ...models.soft_targets import learn_soft_targets
from ._common import unwrap


@HOOKS.register_module()
class SoftTargetHook(Hook):
    """Train the network on stored class probabilities of pseudo-labeled images by soft cross-entropy.

    It needs a ``SelfTrainingDataset`` with ``pseudo_labeled=dict(soft=True)``. The stages of ST and ST++ add
    the hook if a ``LabelStage`` with ``soft=K`` wrote the labels. The loss on labeled images does not change.
    Checkpoints do not change, either. See :func:`~mmseg_semi.models.soft_targets.soft_loss_by_feat`.

    Raises:
        ValueError: The training is not a self-training with soft labels, or the loss of a head is not
            supported.
    """

    #: Line for the start of the log.
    reading = 'soft cross-entropy with the probabilities of the teacher for pseudo-labeled images'

    def before_train(self, runner) -> None:
        model, dataset = unwrap(runner.model), runner.train_dataloader.dataset
        if isinstance(model, SemiSegmentor) or not isinstance(dataset, SelfTrainingDataset):
            raise ValueError(
                f'SoftTargetHook needs a plain network and a SelfTrainingDataset, got '
                f'{type(model).__name__} and {type(dataset).__name__}. Remove it from custom_hooks.'
            )
        if not dataset.has_soft_labels:
            raise ValueError(
                'SoftTargetHook is set, but the pseudo-labels have no soft labels. Set '
                'train_dataloader.dataset.pseudo_labeled.soft=True, or remove the hook from custom_hooks.'
            )
        learn_soft_targets(model)
