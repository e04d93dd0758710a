"""Check a config before the first iteration and raise one-sentence errors."""

from __future__ import annotations

import json
import os.path as osp

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop
from mmseg.models.decode_heads import STDCHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import HOOKS

from ...datasets import (
    LabeledUnlabeledDataset,
    LabeledUnlabeledSampler,
    PositionSampler,
    SelfTrainingDataset,
    ShuffledSampler,
    check_files_exist,
)
from ...datasets.backends import read_bytes
from ...datasets.children import check_names, taken_files
from ...datasets.files import copies_of, real_paths
from ...datasets.fingerprints import identify
from ...datasets.partition import check_partition
from ...datasets.pseudo_labeled import LABELS_SUMMARY
from ...datasets.walk import image_files, leaves
from ...models.cutmix import CutMix
from ...models.patches import nearest, patch_size, whole_patches
from ...models.segmentors import MeanTeacherSegmentor, SemiSegmentor, SlideScoreEncoderDecoder
from ..accumulation import accumulation
from ..startup.checkpoints import match_checkpoint
from ..startup.forwards import check_single_images
from ..startup.ignore_index import check_evaluation, check_ignore_index
from ..startup.images import check_images
from ..startup.masks import check_evaluated_masks, check_masks
from ..startup.meanings import check_meaning_of_checkpoint, check_meanings
from ..startup.metrics import check_image_sizes, check_metrics
from ..startup.phases import check_phases
from ..startup.schedule import ConfiguredSchedule, continue_schedule
from ..startup.sets import evaluated_sets
from ..startup.wrappers import check_wrapper
from ..train_loops import WholeStepEpochTrainLoop
from ._common import unwrap

#: Minimum fraction of the labeled list in common with a published list, for a mention in the log.
NEAR_SHARE = 0.1


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Check that model, data and loaders match, and log a summary of the training.

    The summary has the numbers of images, the published partition of the labeled list, iterations and optimizer
    steps per epoch, the effective batch size, and the settings for details that the paper leaves open.

    Args:
        same_masks: Whether the masks of all sets must have the same format. False allows different
            ``reduce_zero_label`` and ``label_map``.
        check_masks: Whether to read at most 200 labeled masks and 200 masks of a validation set, to check that
            the void value is not a class.

    Raises:
        ValueError: One sentence with a remedy, for one of these problems: The batch size does not match the
            sampler. A hook of the method is missing, or ``EMAHook`` would average its teacher. A setting of the
            method is beside the model. The networks of the method cannot be trained. Head and
            dataset have different numbers of classes. Name and list of the partition have different numbers of
            labeled images. The void value is not the same everywhere. The crop is not a multiple of the patches
            of a vision transformer. A training image is also a validation image. Files have more bands or bits
            than are loaded. A mask may be rotated against its image. Class indices have different meanings in
            datasets or in a tested checkpoint. A class has no pixels while more than 1 % of the pixels have the
            void value. A checkpoint does not match the model.
        FileNotFoundError: A file of the validation set does not exist.
    """

    priority = 'VERY_HIGH'

    def __init__(self, same_masks: bool = True, check_masks: bool = True) -> None:
        self.same_masks, self.check_masks = same_masks, check_masks
        self._configured: ConfiguredSchedule | None = None
        self._loaded = None
        self._training = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._loaded = {'meta': checkpoint.get('meta')}  # not the weights
        match_checkpoint(runner, checkpoint)
        # The schedulers still have the settings of the config. Resuming overwrites them.
        training = isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        if training and self._configured is None:
            self._configured = ConfiguredSchedule(runner, checkpoint)

    def before_val(self, runner) -> None:
        if not self._training:
            self._check_checkpoint(runner, 'val')
            check_evaluated_masks(runner.val_loop, 'val')

    def _check_checkpoint(self, runner, stage: str) -> None:
        if self._loaded is not None:
            check_meaning_of_checkpoint(runner, self._loaded, stage, self.same_masks)

    def before_train(self, runner) -> None:
        self._training = True
        self._check_folder(runner)
        model, loader = unwrap(runner.model), runner.train_dataloader
        check_partition(getattr(loader.dataset, 'partition', None), _labeled_images(loader.dataset))
        continue_schedule(runner, self._configured)
        check_metrics(runner)
        check_image_sizes(runner)
        check_wrapper(runner)
        check_single_images(runner)
        self._check_classes(runner, model, loader.dataset)
        self._check_windows(model)
        self._check_patches(runner, model)
        taken = taken_files(loader.dataset)
        for leaf in leaves(loader.dataset, 'train_dataloader.dataset'):
            if leaf.kind is None:  # datasets of this package have checked it already
                check_names(leaf, 'training', taken)
        check_ignore_index(runner)
        check_meanings(runner, self.same_masks)
        self._check_checkpoint(runner, 'train')
        self._check_validation(runner, loader.dataset)
        check_images(runner, evaluated_sets(runner.val_loop, 'val'))
        if self.check_masks:
            check_masks(runner)
        check_evaluated_masks(runner.val_loop, 'val')
        self._check_checkpoints(runner)
        if isinstance(model, SemiSegmentor):
            model.check_start()
            check_phases(runner, model, self._configured)
            self._check_places(runner)
            self._check_hooks(runner, model)
            self._check_loader(runner, model, loader)
            self._report(runner, model, loader)
        elif isinstance(loader.dataset, SelfTrainingDataset):
            self._check_self_training(runner, loader)
            self._report_self_training(runner, loader)
        else:
            self._report_supervised(runner, loader)

    def before_test(self, runner) -> None:
        check_evaluation(runner, runner.test_loop, 'test')
        check_evaluated_masks(runner.test_loop, 'test')
        if not self._training:
            self._check_checkpoint(runner, 'test')

    def _check_classes(self, runner, model, dataset) -> None:
        datasets = {'train_dataloader': dataset, **evaluated_sets(runner.val_loop, 'val')}
        network = getattr(model, model.networks[0]) if isinstance(model, SemiSegmentor) else model
        heads = {key: m for key, m in network.named_modules() if isinstance(m, BaseDecodeHead)}
        for name, data in datasets.items():
            classes = (getattr(data, 'metainfo', None) or {}).get('classes')
            for key, head in heads.items():
                if isinstance(
                    head, STDCHead
                ):  # predicts boundaries and does not depend on the classes
                    continue
                if classes is not None and len(classes) != head.num_classes:
                    raise ValueError(
                        f'{key}.num_classes={head.num_classes} but the dataset of {name} has {len(classes)} '
                        f"classes. Set num_classes={len(classes)} in every head, or correct the dataset's "
                        'metainfo.'
                    )

    def _check_windows(self, model) -> None:
        network = getattr(model, model.networks[0]) if isinstance(model, SemiSegmentor) else model
        tested = getattr(network, 'test_cfg', None) or {}
        for key in ('crop_size', 'stride') if tested.get('mode') == 'slide' else ():
            if not isinstance(tested.get(key), (list, tuple)):
                raise ValueError(
                    f"test_cfg.{key}={tested.get(key)!r} must be (height, width) with mode='slide'. Set "
                    'crop_size and stride to pairs.'
                )

    def _check_patches(self, runner, model) -> None:
        patch = patch_size(model)
        if patch is None:
            return
        preprocessor = model.data_preprocessor
        network = getattr(model, model.networks[0]) if isinstance(model, SemiSegmentor) else model
        key = 'size' if preprocessor.size_divisor is None else 'size_divisor'
        sizes = {f'data_preprocessor.{key}': getattr(preprocessor, key)}
        if (network.test_cfg or {}).get('mode') == 'slide':
            sizes['test_cfg.crop_size'] = network.test_cfg['crop_size']
            if isinstance(
                network, SlideScoreEncoderDecoder
            ):  # clips its last windows at the border
                sizes['test_cfg.stride'] = network.test_cfg['stride']
        for key, size in sizes.items():
            if size is None or not whole_patches(size, patch):
                also = ' and the crop_size of RandomCrop' if 'preprocessor' in key else ''
                raise ValueError(
                    f'{key}={size} is not a multiple of {patch}, the patch size of the backbone. Set '
                    f'{key}{also} to multiples of {patch}, such as {nearest(size, patch)}.'
                )
        tested = preprocessor.test_cfg or {}
        sizes = [tested[key] for key in ('size', 'size_divisor') if tested.get(key) is not None]
        if runner.val_loop is not None and not any(whole_patches(size, patch) for size in sizes):
            runner.logger.warning(
                f'Validation images whose size is not a multiple of {patch}, the patch size of the backbone, '
                f'are stretched by up to a patch. Set data_preprocessor.test_cfg=dict(size_divisor={patch}).'
            )

    def _check_validation(self, runner, dataset) -> None:
        sets = evaluated_sets(runner.val_loop, 'val')
        for key, validation in sets.items():
            # Checked now, not in the first validation after hours.
            check_files_exist(validation, 'validation', key)
        if isinstance(dataset, LabeledUnlabeledDataset):
            parts = {'labeled': dataset.labeled, 'unlabeled': dataset.unlabeled}
        elif isinstance(dataset, SelfTrainingDataset):
            parts = {'labeled': dataset.labeled}
            if dataset.pseudo_labeled is not None:
                parts['pseudo-labeled'] = dataset.pseudo_labeled
        else:
            parts = {'training': dataset}
        for validation in sets.values():
            check_held_out(parts, validation)

    def _check_folder(self, runner) -> None:
        # As MMEngine finds the checkpoint to resume.
        found = osp.isfile(osp.join(runner.work_dir, 'last_checkpoint'))
        if runner._resume and runner._load_from is None and not found:
            runner.logger.warning(
                f'{runner.work_dir} has no checkpoint to resume. The training starts from the beginning. If '
                'there should be one, stop it and correct work_dir.'
            )
        elif not runner._resume and found:
            runner.logger.warning(
                f'{runner.work_dir} has checkpoints of an earlier training, which this training replaces. Set '
                'resume=True to continue it, or another work_dir.'
            )

    def _check_checkpoints(self, runner) -> None:
        accumulated = accumulation(runner)
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook):
                continue
            if type(hook) is CheckpointHook:
                runner.logger.warning(
                    'CheckpointHook writes files in place. If the run is killed while it saves, it may have no '
                    "complete checkpoint. Use type='AtomicCheckpointHook'."
                )
            if hook.interval <= 0 or accumulated == 1:
                continue
            if hook.by_epoch and not isinstance(runner.train_loop, WholeStepEpochTrainLoop):
                if len(runner.train_dataloader) % accumulated:
                    runner.logger.warning(
                        f'An epoch of {len(runner.train_dataloader)} iterations ends inside an optimizer step '
                        f'of accumulative_counts={accumulated}, and checkpoints do not contain its gradients. '
                        "Set train_cfg.type='WholeStepEpochTrainLoop'."
                    )
            elif not hook.by_epoch and hook.interval % accumulated:
                runner.logger.info(
                    f'A checkpoint every {hook.interval} iterations falls inside optimizer steps of '
                    f'accumulative_counts={accumulated} iterations: each is saved at the end of its step.'
                )

    def _check_places(self, runner) -> None:
        for name in ('semi_train_cfg', 'semi_test_cfg'):
            top, used = runner.cfg.get(name) or {}, (runner.cfg.get('model') or {}).get(name) or {}
            ignored = {key: value for key, value in top.items() if key not in used}
            if ignored:
                raise ValueError(
                    f'{name}={ignored} at the top level of the config has no effect. Set '
                    f'model=dict({name}={ignored}).'
                )
            for key in [key for key in top if used[key] != top[key]]:
                # Also a variable of the config, of which --cfg-options has changed the copy in the model.
                runner.logger.warning(
                    f'{name} has {key}={top[key]!r} at the top level of the config, which has no effect, and '
                    f'{key}={used[key]!r} in the model.'
                )

    def _check_hooks(self, runner, model: SemiSegmentor) -> None:
        averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        if averaged and isinstance(model, MeanTeacherSegmentor):
            raise ValueError(
                f'EMAHook would replace all networks of {type(model).__name__} by averages in validations and '
                'checkpoints, also the teacher, which is an average already. Remove it from custom_hooks.'
            )
        present = {base.__name__ for hook in runner.hooks for base in type(hook).__mro__}
        for name in model.required_hooks:
            if name not in present:
                raise ValueError(
                    f"{type(model).__name__} needs {name}. Add dict(type='{name}') to custom_hooks."
                )

    def _check_loader(self, runner, model: SemiSegmentor, loader) -> None:
        sampler, dataset = loader.sampler, loader.dataset
        if not isinstance(dataset, LabeledUnlabeledDataset) or not isinstance(
            sampler, LabeledUnlabeledSampler
        ):
            raise ValueError(
                f'train_dataloader has a {type(dataset).__name__} with a {type(sampler).__name__}. For '
                'semi-supervised training, set train_dataloader.dataset to a LabeledUnlabeledDataset and '
                'train_dataloader.sampler to a LabeledUnlabeledSampler.'
            )
        if loader.batch_size != sampler.labeled + sampler.unlabeled:
            raise ValueError(
                f'train_dataloader.batch_size={loader.batch_size} but the sampler makes batches of '
                f'labeled={sampler.labeled} + unlabeled={sampler.unlabeled}. Set batch_size to '
                f'{sampler.labeled + sampler.unlabeled}.'
            )
        if sampler.unlabeled_streams != model.unlabeled_batches:
            raise ValueError(
                f'the sampler has unlabeled_streams={sampler.unlabeled_streams} but {type(model).__name__} '
                f'needs {model.unlabeled_batches} unlabeled image(s) for each that it trains on (2 with '
                f"cutmix='pair'). Set train_dataloader.sampler.unlabeled_streams={model.unlabeled_batches}."
            )
        self._check_endless(runner, sampler)
        if sampler.unlabeled == 1 and isinstance(model.cutmix, CutMix):
            runner.logger.warning(
                'CutMix pastes images of the same process, but train_dataloader.sampler.unlabeled=1, so that '
                'each image is pasted into itself. Set sampler.unlabeled to at least 2 and adapt batch_size, '
                'or set semi_train_cfg.cutmix=None.'
            )

    def _check_endless(self, runner, sampler: PositionSampler) -> None:
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch == sampler.endless:
            raise ValueError(
                f'the sampler has endless={sampler.endless} under {type(runner.train_loop).__name__}. Set '
                f'endless={not by_epoch}.'
            )

    def _check_self_training(self, runner, loader) -> None:
        if not isinstance(loader.sampler, ShuffledSampler):
            raise ValueError(
                f'train_dataloader has a SelfTrainingDataset with a {type(loader.sampler).__name__}, which '
                "cannot be resumed. Set train_dataloader.sampler=dict(type='ShuffledSampler')."
            )
        self._check_endless(runner, loader.sampler)
        hooks = {type(hook).__name__ for hook in runner.hooks}
        if loader.dataset.has_soft_labels and 'SoftTargetHook' not in hooks:
            raise ValueError(
                'train_dataloader.dataset.pseudo_labeled.soft=True, but no hook uses the soft labels. Add '
                "dict(type='SoftTargetHook') to custom_hooks, or set soft=False."
            )
        if not loader.sampler.endless and len(loader) == 0:
            raise ValueError(
                f'an epoch of {len(loader.dataset)} images on {get_world_size()} process(es) has no whole '
                f'batch of {loader.batch_size}. Lower train_dataloader.batch_size.'
            )

    def _report(self, runner, model: SemiSegmentor, loader) -> None:
        sampler, dataset = loader.sampler, loader.dataset
        world = get_world_size()
        accumulated = accumulation(runner)
        passes = runner.train_loop.max_iters / sampler.iters_per_epoch
        settings = ', '.join(f'{key}={value}' for key, value in model.cfg.as_dict().items())
        runner.logger.info(
            f'{type(model).__name__}: {dataset.num_labeled} labeled and {dataset.num_unlabeled} unlabeled '
            f'images; {sampler.labeled}+{sampler.unlabeled} per process, {world} processes, accumulation '
            f'{accumulated}: an effective batch of '
            f'{sampler.labeled * world * accumulated}+{sampler.unlabeled * world * accumulated}'
            f'{", of which half are learned and half pasted" * (sampler.unlabeled_streams > 1)}; '
            f'{_per_pass(sampler.iters_per_epoch, accumulated, "the unlabeled list")}, {passes:.1f} passes.'
        )
        self._report_partition(runner, dataset.labeled)
        runner.logger.info(
            f'{type(model).__name__} predicts with the {model.semi_test_cfg["predict_on"]}; settings: '
            f'{settings}.'
        )
        readings = model.cfg.readings()
        self._report_readings(runner, f'the paper of {type(model).__name__} leaves', readings)

    def _report_readings(self, runner, where: str, readings: list[str]) -> None:
        readings = [*readings, *(h.reading for h in runner.hooks if hasattr(h, 'reading'))]
        if readings:
            runner.logger.info(f'Choices for details that {where} open: {"; ".join(readings)}.')

    def _report_partition(self, runner, labeled) -> None:
        paths = image_files(labeled)
        if not paths:
            return
        identity = identify(paths)
        rivals = ''.join(f'; not to be taken for {rival}' for rival in identity.rivals)
        runner.logger.info(f'Labeled list: {identity.sentence(NEAR_SHARE)}{rivals}.')

    def _report_supervised(self, runner, loader) -> None:
        number, world = len(loader.dataset), get_world_size()
        accumulated = accumulation(runner)
        batch_size = loader.batch_size or 1
        runner.logger.info(
            f'Supervised training: {number} labeled images; {batch_size} per process, {world} processes, '
            f'accumulation {accumulated}: an effective batch of {batch_size * world * accumulated}; '
            f'{_per_pass(max(1, number // (world * batch_size)), accumulated)}.'
        )
        self._report_partition(runner, loader.dataset)
        self._report_readings(runner, 'its papers leave', [])

    def _report_self_training(self, runner, loader) -> None:
        dataset, world = loader.dataset, get_world_size()
        accumulated = accumulation(runner)
        iterations = len(dataset) // (world * loader.batch_size)
        runner.logger.info(
            f'Self-training: {dataset.num_labeled} labeled images × {dataset.copies} and '
            f'{dataset.num_pseudo_labeled} pseudo-labeled ones; {loader.batch_size} per process, {world} '
            f'processes, accumulation {accumulated}: an effective batch of '
            f'{loader.batch_size * world * accumulated}; {_per_pass(iterations, accumulated)}, '
            f'{runner.train_loop.max_iters} in all.'
        )
        self._report_partition(runner, dataset.labeled)
        heads = [m for m in unwrap(runner.model).modules() if isinstance(m, BaseDecodeHead)]
        hard = 'cross-entropy with hard labels: Eq. 2 and 3 and their "entropy minimization"'
        readings = [
            f'labeled images × {dataset.copies}: Algorithm 2 shows no oversampling, its text and the code do',
            *([] if dataset.has_soft_labels else [hard]),
            *(
                f'align_corners={a}: of the logits'
                for a in sorted({h.align_corners for h in heads})
            ),
        ]
        self._report_readings(runner, 'the papers of ST and ST++ leave', readings)
        for folder in getattr(dataset.pseudo_labeled, 'labels', ()):
            summary = json.loads(read_bytes(osp.join(folder, LABELS_SUMMARY)))
            settings = summary.get('settings', {})
            runner.logger.info(
                f'Pseudo-labels of {folder}: by {summary.get("checkpoint")}, scales {settings.get("scales")}, '
                f'flipped: {settings.get("flip")}.'
            )


def _per_pass(iterations: int, accumulated: int, of: str = 'the list') -> str:
    # Incomplete optimizer steps are dropped.
    steps = max(1, iterations // accumulated)
    return f'{iterations} iterations per pass over {of} ({steps} optimizer steps per epoch)'


def check_held_out(parts: dict, validation) -> None:
    """Raise ValueError if a training image is also a validation image, or a copy of the same name.

    Args:
        parts: Training sets: a word for each dataset = the dataset.
        validation: The validation set.
    """
    held_out = set(real_paths(image_files(validation)))
    for name, dataset in parts.items():
        paths = image_files(dataset)
        resolved = zip(paths, real_paths(paths), strict=True)
        shared = [path for path, real in resolved if real in held_out]
        copies = copies_of(paths, held_out)
        for found, what in ((shared, 'are also'), (copies, 'are copies of')):
            if found:
                raise ValueError(
                    f'{len(found)} {name} images {what} validation images, e.g. {found[0]}. '
                    f'Remove them from the {name} list, since they make the result invalid.'
                )


def _labeled_images(dataset) -> int:
    """Return the number of labeled images of a training set. Repeated images count once."""
    return sum(len(leaf.dataset) for leaf in leaves(dataset) if leaf.kind in (None, 'labeled'))
