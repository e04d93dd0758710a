"""The stages of a method: training, ranking of images, and labeling. Each stage has its own folder."""

from __future__ import annotations

import copy
import gc
import json
import os.path as osp
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.registry import MODELS, TRANSFORMS

from ...datasets import LabeledUnlabeledSampler, SelfTrainingDataset
from ...datasets.partition import fill_partition
from ...datasets.walk import loader_configs
from ...models.checkpoints import read_checkpoint
from ...models.clock import count_steps
from ...models.soft_targets import learn_soft_targets
from ...self_training import prediction_pipeline, pseudo_label, select_reliable
from ...self_training.images import ImagePool
from ...self_training.label_map import LabelMap
from ...self_training.labeling import SCALES
from ...self_training.output import on_first_rank, write_bytes, write_lines
from ...self_training.selection import RELIABLE, UNRELIABLE, reliable_images
from ..accumulation import accumulation
from ..hooks.reliable_selection_hook import kept_checkpoints
from ..startup.lengths import check_config

#: In the settings of a stage, ``stage://NAME/file`` is a file in the folder of stage NAME, and
#: ``stage://NAME/last_checkpoint`` is the last checkpoint of training NAME.
REFERENCE = 'stage://'
LAST_CHECKPOINT = 'last_checkpoint'
#: Top-level settings of a teacher that differs from the student.
TEACHER = ('teacher', 'teacher_checkpoint')
#: File in the folder of a finished training with its numbers of optimizer steps and images.
TRAINED = 'trained.json'
STAGES = Registry('stage', scope='mmseg_semi', locations=['mmseg_semi.engine.runner'])

#: Top-level settings that a training's result depends on.
_DECISIVE = (
    'model',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'randomness',
    'load_from',
    'auto_scale_lr',
    'sync_bn',
)
#: Settings of the loader that only change its speed.
_SPEED_ONLY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


def stage_seed(seed: int, name: str) -> int:
    """Return the seed of a stage. It differs between stages and is reproducible.

    Args:
        seed (int): Seed of the staged config, at least 0.
        name (str): Name of the stage.
    """
    word = np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0]
    # numpy needs seeds below 2**32, and mmengine may add the rank.
    return int(word >> 1)


class Stage(ABC):
    """One stage of a method. Its result is the content of its folder.

    Args:
        name (str): Key in ``stages``.
        folder (str): Folder that only this stage writes to.
        top (Config): The staged config.
        others (dict[str, Stage]): The stages built so far, including all that this stage needs.
    """

    #: Whether the stage uses the teacher's settings at the top level.
    teaches = False
    #: 'labeled' and 'unlabeled' if the stage itself uses these images of the staged config.
    image_kinds: tuple[str, ...] = ()

    def __init__(self, name: str, folder: str, top: Config, others: dict[str, Stage]) -> None:
        self.name, self.folder, self.top = name, folder, top
        self._others = others

    @classmethod
    def kind_for(cls, top: Config) -> type[Stage]:
        """Return the type that replaces this one for a staged config."""
        return cls

    def _other(self, key: str, name: str, kind: type[Stage]) -> Stage:
        """Return the stage that a setting refers to."""
        if not isinstance(self._others.get(name), kind):
            known = [n for n, stage in self._others.items() if isinstance(stage, kind)]
            raise ValueError(
                f'stages.{self.name}.{key}={name!r} is not a {kind.__name__} of this config. Set it to one, '
                f'such as {known[0] if known else "stages.teacher=dict(type=" + repr(kind.__name__) + ")"}.'
            )
        return self._others[name]

    def resolve(self, value, finished: bool = True):
        """Replace every ``stage://NAME/file`` in a copy of ``value`` by the path.

        Args:
            value: Value of a config.
            finished (bool): Whether the stages in ``value`` are finished. Before that, the names of checkpoints
                are unknown.
        """

        def path(text: str) -> str:
            file = text.removeprefix(REFERENCE).partition('/')[2]
            kind = NetworkStage if file == LAST_CHECKPOINT else Stage
            stage = self._other(REFERENCE.strip(':/'), _name_of(text), kind)
            if finished and file == LAST_CHECKPOINT:
                path = stage.checkpoint()
                return path if '://' in path else osp.abspath(path)
            return osp.join(stage.folder, file).rstrip('/')

        return _mapped(value, lambda text: path(text) if text.startswith(REFERENCE) else text)

    def needs(self) -> set[str]:
        """Names of the stages whose results this stage uses."""
        return {_name_of(reference) for reference in _references(self.settings())}

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError before any stage runs, if this one cannot run."""
        self.resolve(self.settings(), finished=False)

    @abstractmethod
    def settings(self) -> dict:
        """Settings that the result depends on, with unresolved references."""

    @abstractmethod
    def run(self, logger: MMLogger) -> None:
        """Compute the result, or continue after an interruption. Every rank calls it."""


class NetworkStage(Stage):
    """A stage that provides a trained network."""

    #: Mapping to the student's classes, if the network has other classes.
    label_map: LabelMap | None = None

    @abstractmethod
    def config(self) -> Config:
        """Return the config of the network and of its test pipeline."""

    @abstractmethod
    def checkpoint(self, which: str = 'last') -> str:
        """Return the 'last' or the 'best' checkpoint."""

    @abstractmethod
    def scoring_checkpoints(self) -> list[str]:
        """Return the checkpoints of one training, in order, that `SelectStage` compares."""

    @abstractmethod
    def check_scoring(self, stage: str) -> None:
        """Raise ValueError if a stage will not have these checkpoints."""


@STAGES.register_module()
class TrainStage(NetworkStage):
    """An ordinary training by MMEngine's Runner, with the top level of the staged config and changes.

    ``randomness.seed`` is :func:`stage_seed` of the config's seed, so that each training has another
    initialization and another order of images: ST++ re-initializes each network, since networks with the same
    initialization repeat each other's mistakes. A seed in ``cfg`` does not change.

    Args:
        cfg (dict, optional): Changes to the top level, merged like a config into its base.
        extra_hooks (list[dict], optional): Additional ``custom_hooks`` of this training.
    """

    image_kinds = ('labeled',)

    def __init__(
        self,
        name,
        folder,
        top,
        others,
        cfg: dict | None = None,
        extra_hooks: list[dict] | None = None,
    ) -> None:
        super().__init__(name, folder, top, others)
        self._changes, self._extra_hooks = cfg or {}, extra_hooks or []

    def config(self) -> Config:
        """Return the config of this training, with unresolved references."""
        cfg = self._base()
        self._prepare(cfg)
        seed = (cfg.get('randomness') or {}).get('seed')
        if seed is not None:
            cfg.randomness.seed = stage_seed(seed, self.name)
        cfg.merge_from_dict(copy.deepcopy(dict(self._changes)))
        self._learn_soft_labels(cfg)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *copy.deepcopy(self._extra_hooks)]
        cfg.work_dir = self.folder
        return cfg

    def _labels(self, cfg: Config) -> list[LabelStage]:
        """Return the built stages whose pseudo-labels a config of this training uses."""
        dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
        labels = (dataset.get('pseudo_labeled') or {}).get('labels') or ()
        stages = [self._others.get(_name_of(reference)) for reference in _references(labels)]
        return [stage for stage in stages if isinstance(stage, LabelStage)]

    def _learn_soft_labels(self, cfg: Config) -> None:
        """Train on soft labels if the labeling stages store them."""
        stages = self._labels(cfg)
        if not stages or not all(stage.soft for stage in stages):
            return
        if cfg.train_dataloader.dataset.pseudo_labeled.setdefault('soft', True):
            hooks = cfg.get('custom_hooks') or []
            if all(hook.get('type') != 'SoftTargetHook' for hook in hooks):
                cfg.custom_hooks = [*hooks, dict(type='SoftTargetHook')]

    def _base(self) -> Config:
        """Return the config into which the stage's settings are merged."""
        return top_level(self.top)

    def _prepare(self, cfg: Config) -> None:
        """Change a copy of the staged config before ``cfg`` is merged into it."""

    def settings(self) -> dict:
        cfg = self.config().to_dict()
        found = {key: copy.deepcopy(cfg[key]) for key in _DECISIVE if cfg.get(key) is not None}
        loader = found.get('train_dataloader', {})
        for key in _SPEED_ONLY:
            loader.pop(key, None)
        loader.get('dataset', {}).pop('check_files', None)
        return found

    def check(self) -> None:
        super().check()
        try:
            check_config(self.config())
        except ValueError as error:
            raise ValueError(f'Stage {self.name}: {error}') from None
        kinds = {stage.name: bool(stage.soft) for stage in self._labels(self.config())}
        if len(set(kinds.values())) > 1:
            hard = next(name for name, soft in kinds.items() if not soft)
            raise ValueError(
                f'stages.{self.name} trains on soft and on hard pseudo-labels ({", ".join(kinds)}). Set '
                f'stages.{hard}.soft, too, or remove soft from all stages.'
            )
        pseudo = self.config().train_dataloader.dataset.get('pseudo_labeled')
        if pseudo is not None and pseudo.get('labels') is None:
            raise ValueError(
                f'stages.{self.name} has no pseudo-labels to train on. Set '
                f'train_dataloader.dataset.pseudo_labeled in its cfg to dict(labels=["{REFERENCE}NAME"]), or '
                'to None.'
            )
        if any(isinstance(stage, TrainStage) for stage in self._others.values()):
            self._check_parts()

    def _check_parts(self) -> None:
        """Build the network and the transforms, which would otherwise happen after earlier trainings."""
        cfg = self.config()
        try:
            model = MODELS.build(copy.deepcopy(cfg.model))
            for pipeline in _pipelines(cfg.train_dataloader.dataset):
                for transform in pipeline:
                    TRANSFORMS.build(copy.deepcopy(transform))
            if any(hook.get('type') == 'SoftTargetHook' for hook in cfg.custom_hooks):
                learn_soft_targets(model)
        except (KeyError, TypeError, ValueError) as error:
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise ValueError(f'Stage {self.name}: {said}') from error

    def checkpoint(self, which: str = 'last') -> str:
        """Return the last checkpoint, or the best one of ``save_best``.

        Raises:
            FileNotFoundError: The checkpoint does not exist.
            ValueError: Several metrics have a best checkpoint.
        """
        if which == 'last':
            pointer = Path(self.folder, LAST_CHECKPOINT)
            if not pointer.is_file():
                raise FileNotFoundError(
                    f'{pointer} does not exist, so stage {self.name} saved no checkpoint. Set the interval of '
                    'default_hooks.checkpoint to at most the length of the training.'
                )
            # The path in the pointer may be relative to another folder, in which the training was started.
            return osp.join(self.folder, osp.basename(pointer.read_text().strip()))
        found = sorted(Path(self.folder).glob('best_*.pth'))
        if len(found) > 1:
            # An interrupted training may leave older ones.
            hub = read_checkpoint(self.checkpoint()).get('message_hub') or {}
            newest = osp.basename((hub.get('runtime_info') or {}).get('best_ckpt') or '')
            found = [path for path in found if path.name == newest] or found
        if not found:
            raise FileNotFoundError(
                f"checkpoint='best', but stage {self.name} saved no best checkpoint in {self.folder}. Set "
                "default_hooks.checkpoint.save_best='mIoU', or checkpoint='last'."
            )
        if len(found) > 1:
            raise ValueError(
                f"checkpoint='best' is ambiguous: {self.folder} has {', '.join(path.name for path in found)}. "
                'Set default_hooks.checkpoint.save_best to one metric.'
            )
        return str(found[0])

    def scoring_checkpoints(self) -> list[str]:
        return kept_checkpoints(self.folder)

    def check_scoring(self, stage: str) -> None:
        hooks = [hook['type'] for hook in self.config().get('custom_hooks') or ()]
        if 'ReliableSelectionHook' not in hooks:
            raise ValueError(
                f'stages.{stage} ranks images by checkpoints of {self.name}, which saves none. '
                f"Set stages.{self.name}.extra_hooks=[dict(type='ReliableSelectionHook')]."
            )

    def trained(self) -> dict[str, int]:
        """Return the numbers of ``steps``, ``labeled`` and ``unlabeled`` images; empty if unfinished."""
        file = Path(self.folder, TRAINED)
        return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}

    def run(self, logger: MMLogger) -> None:
        cfg = self.config()
        resolved = Config(
            self.resolve(cfg.to_dict()), cfg_text=self.top.text, filename=self.top.filename
        )
        # Formatting the dumped config takes seconds and is skipped if the setting disables it.
        resolved._format_python_code = self.top._format_python_code
        resolved.resume = Path(self.folder, LAST_CHECKPOINT).is_file()
        if resolved.resume:
            # Explicit, because the folder may have been moved since MMEngine wrote its pointer.
            resolved.load_from = osp.abspath(self.checkpoint())
        stem = Path(self.top.filename or 'config').stem
        resolved.experiment_name = f'{self.top.get("experiment_name") or stem}_{self.name}'
        runner = Runner.from_cfg(resolved)
        logger.info(
            f'{self.name}: seed {runner.seed}, which decides its initialization and its order of images'
        )
        earlier = [s for s in self._others.values() if isinstance(s, TrainStage) and s.trained()]
        if earlier:
            runner.logger.info(f'Trainings before this one: {told(earlier)}.')
        try:
            runner.train()
            trained = json.dumps(_count(runner), indent=1).encode()
            on_first_rank(write_bytes, osp.join(self.folder, TRAINED), trained)
        finally:
            _forget(runner)
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@STAGES.register_module()
class SupervisedStage(TrainStage):
    """A supervised training of the plain network on the labeled images of a method's config.

    Network, pipeline, labeled list, number of labeled images per batch, optimizer, schedule and length are
    those of the method's training, so that a config defines them once for both (GPS: pre-training of the
    teacher). It does not have the method's hooks, unlabeled images and ``load_from``, which is for all
    networks.

    Args:
        cfg (dict, optional): Changes to this config, such as ``train_cfg=dict(max_iters=...)``.
        extra_hooks (list[dict], optional): Additional ``custom_hooks``.

    Raises:
        ValueError: The config does not train a method, or counts epochs and ``cfg`` does not set their number.
    """

    def _prepare(self, cfg: Config) -> None:
        if 'segmentor' not in cfg.model or 'labeled' not in cfg.train_dataloader.sampler:
            raise ValueError(
                f'stages.{self.name} is a SupervisedStage, but the config does not train a method with labeled '
                'and unlabeled images. Use a TrainStage.'
            )
        own = self._changes.get('train_cfg') or {}
        if 'max_epochs' in cfg.train_cfg and not {'max_epochs', 'max_iters'} & own.keys():
            raise ValueError(
                f'stages.{self.name} would train train_cfg.max_epochs={cfg.train_cfg.max_epochs} epochs over '
                'the labeled images, but they are meant over the unlabeled images. Set '
                f'stages.{self.name}.cfg=dict(train_cfg=dict(max_epochs=...)).'
            )
        cfg.load_from = None
        method, network = MODELS.get(cfg.model.type), copy.deepcopy(cfg.model.segmentor)
        if cfg.model.get('data_preprocessor') is not None:
            network.data_preprocessor = copy.deepcopy(cfg.model.data_preprocessor)
        cfg.model = network
        labeled, images = self._use_labeled_images(cfg)
        if isinstance(cfg.get('param_scheduler'), dict) and 'type' not in cfg.param_scheduler:
            cfg.param_scheduler = cfg.param_scheduler[next(iter(method.optimized))]
        hooks = cfg.get('custom_hooks') or []
        cfg.custom_hooks = [hook for hook in hooks if hook.type not in method.required_hooks]
        if cfg.get('auto_scale_lr') is not None:
            base = cfg.auto_scale_lr.base_batch_size
            cfg.auto_scale_lr.base_batch_size = base * labeled // images
        if _save_best(cfg):
            # Metrics of a plain network have no network name. Metrics of two networks become one.
            named = _mapped(_save_best(cfg), lambda name: _without(method.networks, name))
            named = named if isinstance(named, str) else list(dict.fromkeys(named))
            cfg.default_hooks.checkpoint.save_best = named
        schedulers = cfg.get('param_scheduler') or []
        schedulers = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]
        for part in (*cfg.custom_hooks, *schedulers):
            if part.get('monitor'):
                part.monitor = _without(method.networks, part.monitor)

    def _use_labeled_images(self, cfg: Config) -> tuple[int, int]:
        """Keep only labeled images in the loader. Returns the labeled images and all images per batch."""
        loader = cfg.train_dataloader
        labeled, images = loader.sampler.labeled, loader.batch_size
        endless = loader.sampler.get('endless', True)
        kept = ('seed', 'check_files', 'partition')
        dataset = {key: v for key, v in loader.dataset.items() if key in kept}
        dataset.update(
            type='SelfTrainingDataset',
            labeled=loader.dataset.labeled,
            pseudo_labeled=None,
            double_below=0,
        )
        if 'epochs' in cfg.train_cfg:
            # Count epochs over the unlabeled images, so that the training is as long as the method's.
            counted = loader.dataset.unlabeled.items()
            dataset['counted'] = {key: value for key, value in counted if key != 'pipeline'}
            sampler = loader.sampler
            dataset['counted_batch'] = sampler.unlabeled // sampler.get('unlabeled_streams', 1)
        loader.pop('collate_fn', None)
        # Key by key, since `update` of a config would merge them into the existing values.
        loader.batch_size, loader.dataset = labeled, dataset
        loader.sampler = dict(type='ShuffledSampler', endless=endless)
        return labeled, images


def _save_best(cfg: Config) -> str | list[str] | None:
    return ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')


def _without(networks: Iterable[str], metric: str) -> str:
    return '/'.join(part for part in metric.split('/') if part not in networks)


class _UsesNetwork(Stage):
    """A stage that predicts unlabeled images with the network of a training."""

    image_kinds = ('unlabeled',)

    def __init__(self, name, folder, top, others, model: str) -> None:
        super().__init__(name, folder, top, others)
        self.training: NetworkStage = self._other('model', model, NetworkStage)

    @property
    def images(self) -> dict:
        """Config of the unlabeled images."""
        dataset = fill_partition(self.top.train_dataloader.dataset)
        return dataset['pseudo_labeled']['images']

    def network_config(self) -> Config:
        """Return the config of the network, with the ``check_files`` of the staged config."""
        cfg = self.training.config()
        checked = self.top.train_dataloader.dataset.get('check_files', True)
        cfg.merge_from_dict({'train_dataloader': {'dataset': {'check_files': checked}}})
        return cfg

    def needs(self) -> set[str]:
        return {self.training.name, *super().needs()}

    def settings(self) -> dict:
        settings = dict(
            model=self.training.name,
            images=_plain(self.images),
            pipeline=prediction_pipeline(self.training.config()),
        )
        if self.training.label_map is not None:
            settings['label_map'] = self.training.label_map.settings()
        return settings

    def check(self) -> None:
        super().check()
        model = self.training.config().model
        head = model.get('segmentor', model).get('decode_head') or {}
        if isinstance(head, dict) and head.get('out_channels') == 1:
            raise ValueError(
                f'stages.{self.name} cannot label with decode_head.out_channels=1. Set '
                'out_channels=num_classes (2 for an object and its background).'
            )


@STAGES.register_module()
class SelectStage(_UsesNetwork):
    """Rank the unlabeled images by the stability of their masks (ST++, Eq. 4) and split them.

    Args:
        model (str): Name of the training. It must have a ReliableSelectionHook.
        ratio (float): Fraction of reliable images, in (0, 1).
        batch_size (int): Images of equal size per forward pass.
        num_workers (int): Processes that load images.
    """

    def __init__(
        self, name, folder, top, others, model, ratio=0.5, batch_size=8, num_workers=2
    ) -> None:
        super().__init__(name, folder, top, others, model)
        if not 0 < ratio < 1:
            raise ValueError(
                f'stages.{name}.ratio={ratio} leaves one of the two halves empty. Set it between 0 and 1.'
            )
        self.ratio, self.batch_size, self.num_workers = ratio, batch_size, num_workers

    def settings(self) -> dict:
        return {**super().settings(), 'ratio': self.ratio}

    def check(self) -> None:
        super().check()
        self.training.check_scoring(self.name)

    def run(self, logger: MMLogger) -> None:
        select_reliable(
            self.network_config(),
            self.training.scoring_checkpoints(),
            self.images,
            self.folder,
            ratio=self.ratio,
            label_map=self.training.label_map,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            logger=logger,
        )


@STAGES.register_module()
class RandomSelectStage(SelectStage):
    """Split the unlabeled images at random instead of by stability, the baseline "random" of ST++.

    Args:
        ratio (float): Fraction of images in the first part, in (0, 1).
        seed (int): Random seed.
        **kwargs: Same as in :class:`SelectStage`.
    """

    def __init__(self, name, folder, top, others, model, seed=0, **kwargs) -> None:
        super().__init__(name, folder, top, others, model, **kwargs)
        self.seed = seed

    def settings(self) -> dict:
        return {**super().settings(), 'seed': self.seed}

    def check(self) -> None:
        _UsesNetwork.check(self)  # no checkpoints are compared

    def run(self, logger: MMLogger) -> None:
        ids = ImagePool(self.network_config(), self.images).ids
        number = reliable_images(len(ids), self.ratio)
        drawn = set(random.Random(self.seed).sample(sorted(ids), number))
        for file, chosen in ((RELIABLE, True), (UNRELIABLE, False)):
            lines = [name for name in ids if (name in drawn) == chosen]
            on_first_rank(write_lines, osp.join(self.folder, file), lines)
        logger.info(f'{self.name}: {len(drawn)} of {len(ids)} images drawn for the first half')


@STAGES.register_module()
class LabelStage(_UsesNetwork):
    """Write pseudo-labels by test-time augmentation (ST++, Algorithm 1 and its code).

    Args:
        model (str): Name of the training or given teacher whose network labels.
        subset (str, optional): File of ids, one per line; None labels all unlabeled images.
        checkpoint (str): 'last', or 'best' for the one of ``save_best``, as in the tables of ST++.
        scales (list[float]): Scale factors of the image.
        flip (bool): Whether to flip the image at each scale, too.
        threshold (float): Pixels with a lower mean softmax score are void, in [0, 1). ST++ labels every pixel
            (0) and compares with 0.5.
        soft (int, optional): Also store the mean softmax scores of the ``soft`` most probable classes per
            pixel. Trainings on these labels then use soft cross-entropy, see
            :class:`~mmseg_semi.engine.hooks.SoftTargetHook`. ST++ has hard labels.
        batch_size (int): Images of equal size per forward pass.
        num_workers (int): Processes that load images.
    """

    def __init__(
        self,
        name,
        folder,
        top,
        others,
        model,
        subset=None,
        checkpoint='last',
        scales=SCALES,
        flip=True,
        threshold=0.0,
        soft=None,
        batch_size=8,
        num_workers=2,
    ) -> None:
        super().__init__(name, folder, top, others, model)
        if soft is not None and (not isinstance(soft, int) or soft < 1):
            raise ValueError(
                f'stages.{name}.soft, the number of stored classes per pixel, must be at least 1, or None for '
                f'hard labels, got {soft!r}.'
            )
        self.soft = soft
        if not 0 <= threshold < 1:
            raise ValueError(
                f'stages.{name}.threshold must be in [0, 1), got {threshold}. Set it to 0 to label every pixel.'
            )
        self.threshold = threshold
        if checkpoint not in ('last', 'best'):
            raise ValueError(
                f"stages.{name}.checkpoint must be 'last' or 'best' (on the validation set), got "
                f'{checkpoint!r}.'
            )
        self.subset, self.checkpoint = subset, checkpoint
        self.scales, self.flip = tuple(scales), flip
        self.batch_size, self.num_workers = batch_size, num_workers

    def settings(self) -> dict:
        settings = dict(
            checkpoint=self.checkpoint,
            subset=self.subset,
            scales=list(self.scales),
            flip=self.flip,
        )
        if self.threshold:
            settings['threshold'] = self.threshold
        if self.soft:
            settings['soft'] = self.soft
        if self.checkpoint == 'best':
            cfg = self.training.config()
            datasets = [_plain(loader['dataset']) for _, loader in loader_configs(cfg, 'val')]
            settings['validation'] = datasets if len(datasets) > 1 else datasets[0]
            settings['save_best'] = _save_best(cfg)
        return {**super().settings(), **settings}

    def check(self) -> None:
        super().check()
        own_list = self.subset is not None and not self.subset.startswith(REFERENCE)
        if own_list and not osp.isfile(self.subset):
            raise FileNotFoundError(
                f'stages.{self.name}.subset={self.subset!r} does not exist. Give a file of ids, one per line.'
            )
        number = num_classes(self.top)
        if self.soft and number and self.soft > number:
            raise ValueError(
                f'stages.{self.name}.soft={self.soft}, the number of stored classes per pixel, is larger than '
                f'num_classes={number}. Set it to at most {number}.'
            )
        if self.checkpoint == 'best' and not _save_best(self.training.config()):
            raise ValueError(
                f"stages.{self.name}.checkpoint='best', but no best checkpoint is saved. Set "
                "default_hooks.checkpoint.save_best='mIoU'."
            )

    def run(self, logger: MMLogger) -> None:
        path = self.training.checkpoint(self.checkpoint)
        logger.info(
            f'{self.name}: labeling with the {self.checkpoint} checkpoint of {self.training.name}, {path}'
        )
        subset = self.resolve(self.subset)
        if subset is not None:
            text = Path(subset).read_bytes().decode('utf-8-sig')
            if self.subset.startswith(REFERENCE):
                # Ids that a stage wrote may begin or end in blanks.
                subset = text.removesuffix('\n').split('\n') if text else []
            else:
                subset = [line.strip() for line in text.splitlines() if line.strip()]
        pseudo_label(
            self.network_config(),
            path,
            self.images,
            self.folder,
            subset=subset,
            scales=self.scales,
            flip=self.flip,
            threshold=self.threshold,
            soft=self.soft,
            label_map=self.training.label_map,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            logger=logger,
        )


def num_classes(cfg: Config) -> int | None:
    """Return the number of classes of the decode head of a config; of the last one in a cascade."""
    head = cfg.model.get('segmentor', cfg.model).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) and head else head
    return head.get('num_classes')


def told(trainings: Iterable[TrainStage]) -> str:
    """Return a phrase with the steps and images of each finished training."""
    counts = {stage.name: stage.trained() for stage in trainings}
    return ', '.join(
        f'{name} {count["steps"]} steps ({count["labeled"]} labeled and {count["unlabeled"]} unlabeled '
        'images)'
        for name, count in counts.items()
    )


def _count(runner: Runner) -> dict[str, int]:
    """Return the optimizer steps and the images of a training over all processes, with repetitions.

    For self-training, which mixes labeled and pseudo-labeled images, the numbers are expected values.
    """
    loader, iterations = runner.train_dataloader, runner.iter
    labeled, unlabeled = loader.batch_size or 1, 0.0
    if isinstance(loader.sampler, LabeledUnlabeledSampler):
        labeled, unlabeled = loader.sampler.labeled, loader.sampler.unlabeled
    elif isinstance(loader.dataset, SelfTrainingDataset):
        share = loader.dataset.num_pseudo_labeled / len(loader.dataset)
        labeled, unlabeled = labeled * (1 - share), labeled * share
    times = iterations * get_world_size()
    return dict(
        steps=count_steps(iterations, accumulation(runner)),
        labeled=round(labeled * times),
        unlabeled=round(unlabeled * times),
    )


def build_stages(top: Config) -> dict[str, Stage]:
    """Return the stages of a config by name, each one after the stages that it needs.

    Raises:
        ValueError: There are no stages, a type or setting is unknown, or a reference is unknown or cyclic.
    """
    if not top.get('stages'):
        raise ValueError(
            f"runner_type='StagedRunner', but {top.filename or 'the config'} has no stages. Add "
            "stages=dict(teacher=dict(type='TrainStage', ...), ...)."
        )
    stages: dict[str, Stage] = {}

    def build(name: str, waiting: tuple[str, ...] = ()) -> None:
        if name in waiting:
            circle = ' → '.join([*waiting[waiting.index(name) :], name])
            raise ValueError(
                f'The stages depend on each other in a cycle, {circle}. Correct `model` or the stage:// of one.'
            )
        if name in stages or name not in top.stages:
            return
        for needed in _needed(name, top):
            build(needed, (*waiting, name))
        stages[name] = _build_stage(name, top, dict(stages))

    given = [key for key in TEACHER if top.get(key)]
    types = [STAGES.get(stage.get('type', '')) for stage in top.stages.values()]
    if given and not any(kind is not None and kind.teaches for kind in types):
        raise ValueError(
            f'{given[0]} is set, but this config has no TeacherStage. Set '
            "stages.teacher=dict(type='TeacherStage') as in configs/_base_/runtime/st_runtime.py, or remove "
            f'{given[0]}.'
        )
    # Sorted by dependencies and not by position, since MMEngine sorts the keys of a config that it writes.
    for name in top.stages:
        build(name)
    return stages


def _needed(name: str, top: Config) -> Iterator[str]:
    """Return the names of the stages to which a stage's config and its top-level settings refer."""
    config = top.stages[name]
    if 'model' in config:
        yield config['model']
    for reference in _references(config):
        yield _name_of(reference)
    kind = STAGES.get(config.get('type', ''))
    if kind is not None and issubclass(kind, NetworkStage):
        yield from sorted(_build_stage(name, top, {}).needs())


def _build_stage(name: str, top: Config, others: dict[str, Stage]) -> Stage:
    settings = dict(top.stages[name])
    kind = STAGES.get(settings.pop('type', ''))
    if kind is None:
        raise ValueError(
            f'stages.{name}.type={top.stages[name].get("type")!r} is not a stage. Use one of '
            f'{", ".join(sorted(STAGES.module_dict))}.'
        )
    kind = kind.kind_for(top)
    try:
        return kind(name, osp.join(top.work_dir, name), top, others, **settings)
    except TypeError as error:
        raise ValueError(
            f'stages.{name} has wrong settings for {kind.__name__} ({error}). Correct them.'
        ) from None


def top_level(top: Config) -> Config:
    """Return a copy of the top level of a staged config without settings for stages: an ordinary config."""
    cfg = copy.deepcopy(top)
    for key in ('runner_type', 'stages', 'run_stages', *TEACHER):
        cfg.pop(key, None)
    return cfg


def _mapped(value, change: Callable[[str], str]):
    """Apply ``change`` to every string in ``value``."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _pipelines(value) -> Iterator[list]:
    """Yield every ``pipeline`` in the config of a dataset and of those within it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == 'pipeline':
                yield item or []
            else:
                yield from _pipelines(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pipelines(item)


def _references(value) -> Iterator[str]:
    """Yield every string in ``value`` that refers to a stage."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _name_of(reference: str) -> str:
    """Return the stage to which `stage://NAME/file` refers."""
    return reference.removeprefix(REFERENCE).partition('/')[0]


def _plain(config) -> dict:
    return config.to_dict() if hasattr(config, 'to_dict') else dict(config)


def _forget(runner: Runner) -> None:
    """Close the logs of a finished Runner and remove its global instances from MMEngine.

    Otherwise the next stage would reuse the visualizer of the same name and write to this folder.
    """
    runner.visualizer.close()
    for handler in runner.logger.handlers:
        handler.close()
    for instance in (runner.visualizer, runner.logger, runner.message_hub):
        for owner in {type(instance), Visualizer, MMLogger, MessageHub}:
            owner._instance_dict.pop(instance.instance_name, None)
