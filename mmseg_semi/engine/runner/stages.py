"""The stages of a method: trainings, a ranking of images, a labeling; each in a folder of its own."""

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
from mmseg.registry import MODELS

from ...datasets import LabeledUnlabeledSampler, SelfTrainingDataset
from ...datasets.partition import fill_partition
from ...datasets.walk import loader_configs
from ...models.clock import count_steps
from ...self_training import prediction_pipeline, pseudo_label, select_reliable
from ...self_training.images import ImagePool
from ...self_training.label_map import LabelMap
from ...self_training.labeling import SCALES
from ...self_training.output import on_first_rank, write_bytes, write_lines
from ...self_training.selection import RELIABLE, UNRELIABLE
from ..accumulation import accumulation
from ..hooks.reliable_selection_hook import kept_checkpoints
from ..startup.lengths import check_config

#: In a stage's settings, ``stage://NAME/file`` is a file in the folder of stage NAME, and
#: ``stage://NAME/last_checkpoint`` the last checkpoint of training NAME.
REFERENCE = 'stage://'
LAST_CHECKPOINT = 'last_checkpoint'
#: Top-level settings of a teacher that differs from the student.
TEACHER = ('teacher', 'teacher_checkpoint')
#: In the folder of a finished training: its optimizer steps and the images that it learned from.
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
#: Settings of the loader that change its speed alone.
_SPEED_ONLY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


def stage_seed(seed: int, name: str) -> int:
    """Seed of a stage: different for each stage of a run, and the same each time that the stage is run.

    Args:
        seed (int): Of the staged config, at least 0.
        name (str): Of the stage.
    """
    word = np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0]
    # numpy takes seeds below 2**32, and mmengine may add the rank.
    return int(word >> 1)


class Stage(ABC):
    """One step of a staged method. Its result is what is in its folder.

    Args:
        name (str): Its key in ``stages``.
        folder (str): Where it writes, and nobody else.
        top (Config): The staged config.
        others (dict[str, Stage]): The stages that are built already, among them all that it names.
    """

    #: Whether the top-level settings of the teacher are its.
    teaches = False

    def __init__(self, name: str, folder: str, top: Config, others: dict[str, Stage]) -> None:
        self.name, self.folder, self.top = name, folder, top
        self._others = others

    @classmethod
    def kind_for(cls, top: Config) -> type[Stage]:
        """The type that stands for this one in a staged config."""
        return cls

    def _other(self, key: str, name: str, kind: type[Stage]) -> Stage:
        """The stage that a setting names."""
        if not isinstance(self._others.get(name), kind):
            known = [n for n, stage in self._others.items() if isinstance(stage, kind)]
            raise ValueError(
                f'stages.{self.name}.{key}={name!r} is not a {kind.__name__} of this config. Name one that is, '
                f'such as {known[0] if known else "stages.teacher=dict(type=" + repr(kind.__name__) + ")"}.'
            )
        return self._others[name]

    def resolve(self, value, finished: bool = True):
        """``value`` with every ``stage://NAME/file`` replaced by the path, in copies of dicts and lists.

        Args:
            value: Of a config.
            finished (bool): Whether the stages that it refers to are; before, no checkpoint has a name.
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
        """Names of the stages whose results it uses."""
        return {_name_of(reference) for reference in _references(self.settings())}

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError, before any stage runs, if this one could not."""
        self.resolve(self.settings(), finished=False)

    @abstractmethod
    def settings(self) -> dict:
        """All that the result depends on, before references are resolved."""

    @abstractmethod
    def run(self, logger: MMLogger) -> None:
        """Make the result; called again after an interruption, continue. Every rank calls it."""


class NetworkStage(Stage):
    """A stage that gives later ones a trained network."""

    #: Classes of the student, where the network has others.
    label_map: LabelMap | None = None

    @abstractmethod
    def config(self) -> Config:
        """The config of the network and of the pipeline that prepares images for it."""

    @abstractmethod
    def checkpoint(self, which: str = 'last') -> str:
        """The 'last' checkpoint, or the 'best' one."""

    @abstractmethod
    def scoring_checkpoints(self) -> list[str]:
        """Checkpoints of one training in their order, which `SelectStage` compares."""

    @abstractmethod
    def check_scoring(self, stage: str) -> None:
        """Raise ValueError if there will be no such checkpoints for a stage."""


@STAGES.register_module()
class TrainStage(NetworkStage):
    """An ordinary training by MMEngine's Runner, of the staged config's top level with changes.

    Its ``randomness.seed`` is :func:`stage_seed` of the config's, so that each training draws its own
    initialization and order of images: ST++ re-initializes each network, since networks that start alike
    repeat each other's mistakes. A seed in ``cfg`` stays as it is.

    Args:
        cfg (dict, optional): What differs from the top level, merged as a config is into its base.
        extra_hooks (list[dict], optional): Hooks of this training besides its ``custom_hooks``.
    """

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
        """The config of this training, with references as they are."""
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
        """The stages whose pseudo-labels a config of this training names, as far as they are built."""
        dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
        labels = (dataset.get('pseudo_labeled') or {}).get('labels') or ()
        stages = [self._others.get(_name_of(reference)) for reference in _references(labels)]
        return [stage for stage in stages if isinstance(stage, LabelStage)]

    def _learn_soft_labels(self, cfg: Config) -> None:
        """Learn from soft labels where the stages that make the pseudo-labels store them."""
        stages = self._labels(cfg)
        if not stages or not all(stage.soft for stage in stages):
            return
        if cfg.train_dataloader.dataset.pseudo_labeled.setdefault('soft', True):
            hooks = cfg.get('custom_hooks') or []
            if all(hook.get('type') != 'SoftTargetHook' for hook in hooks):
                cfg.custom_hooks = [*hooks, dict(type='SoftTargetHook')]

    def _base(self) -> Config:
        """The config that the stage's settings are merged into."""
        return top_level(self.top)

    def _prepare(self, cfg: Config) -> None:
        """Change a copy of the staged config before what differs is merged into it."""

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
                f'stages.{self.name} learns from soft and from hard pseudo-labels, {", ".join(kinds)}. Set '
                f'stages.{hard}.soft as well, or none.'
            )
        pseudo = self.config().train_dataloader.dataset.get('pseudo_labeled')
        if pseudo is not None and pseudo.get('labels') is None:
            raise ValueError(
                f'stages.{self.name} does not say on which pseudo-labels it trains. Set '
                f'train_dataloader.dataset.pseudo_labeled in its cfg to dict(labels=["{REFERENCE}NAME"]), or '
                'to None.'
            )

    def checkpoint(self, which: str = 'last') -> str:
        """The last checkpoint, or the one that ``save_best`` kept.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: several metrics have a best checkpoint.
        """
        if which == 'last':
            pointer = Path(self.folder, LAST_CHECKPOINT)
            if not pointer.is_file():
                raise FileNotFoundError(
                    f'{pointer} does not exist, so stage {self.name} left no checkpoint. Set the interval of '
                    'default_hooks.checkpoint to at most the length of the training.'
                )
            # The pointer has the path as it was when the training was started, perhaps from another folder.
            return osp.join(self.folder, osp.basename(pointer.read_text().strip()))
        found = sorted(Path(self.folder).glob('best_*.pth'))
        if not found:
            raise FileNotFoundError(
                f"checkpoint='best' and stage {self.name} kept no best checkpoint in {self.folder}. Set "
                "default_hooks.checkpoint.save_best='mIoU', or checkpoint='last'."
            )
        if len(found) > 1:
            raise ValueError(
                f"checkpoint='best' and {self.folder} has {', '.join(path.name for path in found)}. Let "
                'default_hooks.checkpoint.save_best name one metric.'
            )
        return str(found[0])

    def scoring_checkpoints(self) -> list[str]:
        return kept_checkpoints(self.folder)

    def check_scoring(self, stage: str) -> None:
        hooks = [hook['type'] for hook in self.config().get('custom_hooks') or ()]
        if 'ReliableSelectionHook' not in hooks:
            raise ValueError(
                f'stages.{stage} ranks images by checkpoints of {self.name}, which keeps none. '
                f"Set stages.{self.name}.extra_hooks=[dict(type='ReliableSelectionHook')]."
            )

    def trained(self) -> dict[str, int]:
        """Optimizer ``steps``, and ``labeled`` and ``unlabeled`` images in them; empty until finished."""
        file = Path(self.folder, TRAINED)
        return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}

    def run(self, logger: MMLogger) -> None:
        cfg = self.config()
        resolved = Config(
            self.resolve(cfg.to_dict()), cfg_text=self.top.text, filename=self.top.filename
        )
        # Laying out the dumped config costs seconds, which whoever switched it off does not want.
        resolved._format_python_code = self.top._format_python_code
        resolved.resume = Path(self.folder, LAST_CHECKPOINT).is_file()
        if resolved.resume:
            # Named, because MMEngine's pointer holds the folder's place at the time, which may have moved.
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
    """A training of the plain network on the labeled images of a config with labeled and unlabeled ones.

    Network, pipeline, labeled list, batch of labeled images, optimizer, schedule and length are those of the
    method's own training, which the other configs of the dataset change in one place for both (GPS: its teacher
    beforehand). The method's hooks are left out, and what counts images counts the labeled ones alone. It does
    not have the method's ``load_from``, which is of all networks.

    Args:
        cfg (dict, optional): What differs from that, such as ``train_cfg=dict(max_iters=...)``.
        extra_hooks (list[dict], optional): Hooks besides the ``custom_hooks``.

    Raises:
        ValueError: The config trains no method, or by epochs, and ``cfg`` does not say how many.
    """

    def _prepare(self, cfg: Config) -> None:
        if 'segmentor' not in cfg.model or 'labeled' not in cfg.train_dataloader.sampler:
            raise ValueError(
                f'stages.{self.name} is a SupervisedStage, but the config trains no method with labeled and '
                'unlabeled images. Use a TrainStage.'
            )
        own = self._changes.get('train_cfg') or {}
        if 'max_epochs' in cfg.train_cfg and not {'max_epochs', 'max_iters'} & own.keys():
            raise ValueError(
                f'stages.{self.name} would count the {cfg.train_cfg.max_epochs} passes over the unlabeled '
                'images of train_cfg.max_epochs as passes over the labeled ones. Set the number of passes over '
                f'these, stages.{self.name}.cfg=dict(train_cfg=dict(max_epochs=...)).'
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
        checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        if checkpoint.get('save_best'):
            # Its metrics carry no network's name; those of two networks become one.
            named = _mapped(checkpoint.save_best, lambda name: _without(method.networks, name))
            checkpoint.save_best = named if isinstance(named, str) else list(dict.fromkeys(named))

    def _use_labeled_images(self, cfg: Config) -> tuple[int, int]:
        """Leave the labeled half of the loader; returns its images in a batch, and all that there were."""
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
            # Which are passes over these: the training is as long as the method's own.
            counted = loader.dataset.unlabeled.items()
            dataset['counted'] = {key: value for key, value in counted if key != 'pipeline'}
        loader.pop('collate_fn', None)
        # One by one: a config's `update` would merge them into what is there.
        loader.batch_size, loader.dataset = labeled, dataset
        loader.sampler = dict(type='ShuffledSampler', endless=endless)
        return labeled, images


def _without(networks: Iterable[str], metric: str) -> str:
    return '/'.join(part for part in metric.split('/') if part not in networks)


class _UsesNetwork(Stage):
    """A stage that predicts the unlabeled images with the network of a training."""

    def __init__(self, name, folder, top, others, model: str) -> None:
        super().__init__(name, folder, top, others)
        self.training: NetworkStage = self._other('model', model, NetworkStage)

    @property
    def images(self) -> dict:
        """Config of the unlabeled images."""
        dataset = fill_partition(self.top.train_dataloader.dataset)
        return dataset['pseudo_labeled']['images']

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
        model (str): The training, which has a ReliableSelectionHook.
        ratio (float): Share of reliable images, in (0, 1).
        batch_size (int): Images per forward, where their sizes are equal.
        num_workers (int): Processes that load images.
    """

    def __init__(
        self, name, folder, top, others, model, ratio=0.5, batch_size=8, num_workers=2
    ) -> None:
        super().__init__(name, folder, top, others, model)
        if not 0 < ratio < 1:
            raise ValueError(
                f'stages.{name}.ratio={ratio} leaves one of the two halves empty. Give a share between 0 and 1.'
            )
        self.ratio, self.batch_size, self.num_workers = ratio, batch_size, num_workers

    def settings(self) -> dict:
        return {**super().settings(), 'ratio': self.ratio}

    def check(self) -> None:
        super().check()
        self.training.check_scoring(self.name)

    def run(self, logger: MMLogger) -> None:
        select_reliable(
            self.training.config(),
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
    """Split the unlabeled images by chance instead of by stability, which ST++ compares with ("random").

    Args:
        ratio (float): Share of the first half, in (0, 1).
        seed (int): Of the draw.
        **kwargs: As of :class:`SelectStage`.
    """

    def __init__(self, name, folder, top, others, model, seed=0, **kwargs) -> None:
        super().__init__(name, folder, top, others, model, **kwargs)
        self.seed = seed

    def settings(self) -> dict:
        return {**super().settings(), 'seed': self.seed}

    def check(self) -> None:
        _UsesNetwork.check(self)  # no checkpoints are compared

    def run(self, logger: MMLogger) -> None:
        ids = ImagePool(self.training.config(), self.images).ids
        drawn = set(random.Random(self.seed).sample(sorted(ids), int(len(ids) * self.ratio)))
        for file, chosen in ((RELIABLE, True), (UNRELIABLE, False)):
            lines = [name for name in ids if (name in drawn) == chosen]
            on_first_rank(write_lines, osp.join(self.folder, file), lines)
        logger.info(f'{self.name}: {len(drawn)} of {len(ids)} images drawn for the first half')


@STAGES.register_module()
class LabelStage(_UsesNetwork):
    """Write pseudo-labels by test-time augmentation (ST++, Algorithm 1 and its code).

    Args:
        model (str): The training, or the given teacher, whose network labels.
        subset (str, optional): File of ids, one per line; None labels all unlabeled images.
        checkpoint (str): 'last', or 'best' for the one that ``save_best`` kept, as ST++'s tables have it.
        scales (list[float]): Factors of the image's size.
        flip (bool): Whether each scale is also seen mirrored.
        threshold (float): Mean softmax below which a pixel is void, in [0, 1). ST++ labels every pixel (0) and
            compares with 0.5.
        soft (int, optional): Store the mean softmax of the ``soft`` most probable classes of each pixel beside
            the masks. The trainings on these labels then learn it by soft cross-entropy, see
            :class:`~mmseg_semi.engine.hooks.SoftTargetHook`. ST++ has hard labels.
        batch_size (int): Images per forward, where their sizes are equal.
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
                f'stages.{name}.soft={soft!r} must be the number of classes that are kept of each pixel, at '
                'least 1, or None for hard labels.'
            )
        self.soft = soft
        if not 0 <= threshold < 1:
            raise ValueError(
                f'stages.{name}.threshold={threshold} must be in [0, 1), where 0 labels every pixel.'
            )
        self.threshold = threshold
        if checkpoint not in ('last', 'best'):
            raise ValueError(
                f"stages.{name}.checkpoint={checkpoint!r} must be 'last' or 'best' (on the validation set)."
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
            settings['save_best'] = cfg.default_hooks.checkpoint.get('save_best')
        return {**super().settings(), **settings}

    def check(self) -> None:
        super().check()
        own_list = self.subset is not None and not self.subset.startswith(REFERENCE)
        if own_list and not osp.isfile(self.subset):
            raise FileNotFoundError(
                f'stages.{self.name}.subset={self.subset!r} does not exist. Give a file of ids, one per line.'
            )
        saves_best = self.training.config().default_hooks.checkpoint.get('save_best')
        if self.checkpoint == 'best' and not saves_best:
            raise ValueError(
                f"stages.{self.name}.checkpoint='best' and no best checkpoint is kept. Set "
                "default_hooks.checkpoint.save_best='mIoU'."
            )

    def run(self, logger: MMLogger) -> None:
        path = self.training.checkpoint(self.checkpoint)
        logger.info(
            f'{self.name}: labeling with the {self.checkpoint} checkpoint of {self.training.name}, {path}'
        )
        subset = self.resolve(self.subset)
        if subset is not None:
            lines = Path(subset).read_text(encoding='utf-8-sig').splitlines()
            subset = [line.strip() for line in lines if line.strip()]
        pseudo_label(
            self.training.config(),
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


def told(trainings: Iterable[TrainStage]) -> str:
    """Name the steps and images of finished trainings, each beside the others."""
    counts = {stage.name: stage.trained() for stage in trainings}
    return ', '.join(
        f'{name} {count["steps"]} steps ({count["labeled"]} labeled and {count["unlabeled"]} unlabeled '
        'images)'
        for name, count in counts.items()
    )


def _count(runner: Runner) -> dict[str, int]:
    """Optimizer steps of a training and the images in them over all processes, with repetitions.

    Of self-training, which mixes labeled and pseudo-labeled images, shares as expected from its list.
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
    """The stages of a config by name, each after those that it needs.

    Raises:
        ValueError: none, an unknown type or setting, or a reference to no stage or in a circle.
    """
    if not top.get('stages'):
        raise ValueError(
            f"runner_type='StagedRunner' and {top.filename or 'the config'} has no stages. Add "
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
            f'{given[0]} is set, and no stage of this config is a TeacherStage. Set '
            "stages.teacher=dict(type='TeacherStage') as configs/_base_/runtime/st_runtime.py has it, or leave "
            f'{given[0]} out.'
        )
    # By what they need, not by their place: MMEngine sorts the keys of a config that it writes.
    for name in top.stages:
        build(name)
    return stages


def _needed(name: str, top: Config) -> Iterator[str]:
    """Names of the stages that a stage's config names, or what it takes of the top level."""
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
        raise ValueError(f'stages.{name} does not fit {kind.__name__}: {error}.') from None


def top_level(top: Config) -> Config:
    """A copy of the top level of a staged config: an ordinary config, without what stages alone read."""
    cfg = copy.deepcopy(top)
    for key in ('runner_type', 'stages', 'run_stages', *TEACHER):
        cfg.pop(key, None)
    return cfg


def _mapped(value, change: Callable[[str], str]):
    """``value`` with ``change`` applied to every string in it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _references(value) -> Iterator[str]:
    """Every string in ``value`` that refers to a stage."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _name_of(reference: str) -> str:
    """The stage that `stage://NAME/file` refers to."""
    return reference.removeprefix(REFERENCE).partition('/')[0]


def _plain(config) -> dict:
    return config.to_dict() if hasattr(config, 'to_dict') else dict(config)


def _forget(runner: Runner) -> None:
    """Close the logs of a finished Runner and let go what MMEngine keeps of it under global names.

    The next stage's visualizer has the same name and would otherwise be this one, writing to its folder.
    """
    runner.visualizer.close()
    for handler in runner.logger.handlers:
        handler.close()
    for instance in (runner.visualizer, runner.logger, runner.message_hub):
        for owner in {type(instance), Visualizer, MMLogger, MessageHub}:
            owner._instance_dict.pop(instance.instance_name, None)
