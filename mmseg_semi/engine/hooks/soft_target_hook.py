"""Self-training from the class distributions that a teacher gave, instead of its labels."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...datasets import SelfTrainingDataset
from ...models.segmentors import SemiSegmentor
from ...models.soft_targets import learn_soft_targets
from ._common import unwrap


@HOOKS.register_module()
class SoftTargetHook(Hook):
    """Let the network learn the stored probabilities of pseudo-labeled images by soft cross-entropy.

    For a ``SelfTrainingDataset`` with ``pseudo_labeled=dict(soft=True)``; the stages of ST and ST++ add it
    where a ``LabelStage`` with ``soft=K`` made the labels. Labeled images are learned from as ever. Nothing is
    stored in checkpoints. See :func:`~mmseg_semi.models.soft_targets.soft_loss_by_feat`.

    Raises:
        ValueError: The training is not a self-training with soft labels, or a head has another loss.
    """

    #: For the first lines of the log.
    reading = 'soft cross-entropy with the probabilities of the teacher for pseudo-labeled images'

    def before_train(self, runner) -> None:
        model, dataset = unwrap(runner.model), runner.train_dataloader.dataset
        if isinstance(model, SemiSegmentor) or not isinstance(dataset, SelfTrainingDataset):
            raise ValueError(
                f'SoftTargetHook is for a plain network and a SelfTrainingDataset, not for '
                f'{type(model).__name__} and {type(dataset).__name__}. Remove it from custom_hooks.'
            )
        if not dataset.has_soft_labels:
            raise ValueError(
                'SoftTargetHook is set and the pseudo-labels have no soft labels. Set '
                'train_dataloader.dataset.pseudo_labeled.soft=True, or remove the hook from custom_hooks.'
            )
        learn_soft_targets(model)
