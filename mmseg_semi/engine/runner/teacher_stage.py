"""A separate teacher for self-training, which is trained first or given as a checkpoint."""

from __future__ import annotations

import copy
import functools
import os.path as osp
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from ...compat import config_path
from ...datasets.meanings import meaning_of_checkpoint, meanings_of_config
from ...datasets.walk import stage_leaves
from ...models.checkpoints import read_checkpoint
from ...self_training.label_map import LabelMap
from ...self_training.output import on_first_rank, whole_file
from ...self_training.prediction import Predictor, checkpoint_digest
from .stages import STAGES, NetworkStage, Stage, TrainStage, num_classes, top_level

#: Keys of `teacher` that are not parts of a training config.
_OWN = ('config', 'label_map')
#: Parts that a teacher may have even if the staged config does not.
_PARTS = (
    'model',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'auto_scale_lr',
    'load_from',
    'model_wrapper_cfg',
    'sync_bn',
    *(f'{stage}_{part}' for stage in ('train', 'val', 'test') for part in ('cfg', 'dataloader')),
    *(f'{stage}_evaluator' for stage in ('val', 'test')),
)
#: Settings of the run that override those of a teacher's own config, and those that are only defaults.
_OF_RUN, _DEFAULTS = ('launcher', 'randomness'), ('log_level', 'default_scope')


class _Teacher(NetworkStage):
    """A stage that reads ``teacher`` and ``teacher_checkpoint`` of the top level."""

    teaches = True

    @functools.cached_property
    def _given(self) -> dict:
        given = self.top.get('teacher') or {}
        if not isinstance(given, dict):
            raise ValueError(
                f"teacher={given!r} must be a dict. Give dict(config='FILE'), or changes to the top "
                'level, such as dict(model=...).'
            )
        return given.to_dict() if hasattr(given, 'to_dict') else dict(given)

    @functools.cached_property
    def _file(self) -> Config | None:
        """Return the teacher's own config, if it has one."""
        name = self._given.get('config')
        if name is None:
            return None
        path = str(config_path(name)) if '::' in name else name
        if not osp.isfile(path):
            raise FileNotFoundError(
                f'teacher.config={name!r} does not exist. Give the path of a config file, or package::path for '
                'an installed one.'
            )
        cfg = Config.fromfile(path)
        if cfg.get('stages'):
            raise ValueError(
                f'teacher.config={name!r} is a staged config itself. Run it, and set teacher_checkpoint to its '
                'result and teacher.config to the config of its last training.'
            )
        return cfg

    def _teacher_config(self) -> Config:
        """Return the config of the teacher: its file or the top level, with the changes in `teacher`."""
        cfg = top_level(self.top)
        if self._file is not None:
            run, cfg = cfg, copy.deepcopy(self._file)
            for key in (*_OF_RUN, *_DEFAULTS):
                if key in run and (key in _OF_RUN or key not in cfg):
                    cfg[key] = run[key]
            modules = [(c.get('custom_imports') or {}).get('imports') or [] for c in (cfg, run)]
            imports = list(dict.fromkeys([*modules[0], *modules[1]]))
            cfg.custom_imports = dict(imports=imports, allow_failed_imports=False)
        changes = {key: v for key, v in copy.deepcopy(self._given).items() if key not in _OWN}
        for key, value in changes.items():
            if key not in cfg and key not in _PARTS:
                raise ValueError(
                    f'teacher.{key} is not a setting of a training. Give config, label_map, or parts of a '
                    'config such as model, train_dataloader, optim_wrapper, param_scheduler, train_cfg and '
                    'test_dataloader.'
                )
            if isinstance(value, dict) and 'type' in value:
                cfg.pop(key, None)  # replace the whole part instead of merging
        cfg.merge_from_dict(changes)
        return cfg

    @functools.cached_property
    def label_map(self) -> LabelMap | None:
        entries = self._given.get('label_map')
        if entries is None:
            return None
        names, palette = _student_classes(self.top)
        names = names or tuple(f'class {i}' for i in range(num_classes(self.top) or 0))
        return LabelMap(entries, names, palette)

    def check(self) -> None:
        super().check()
        if self.label_map is not None:
            self.label_map.targets()
            return
        cfg = self.config()
        numbers = num_classes(cfg), num_classes(self.top)
        if None not in numbers and numbers[0] != numbers[1]:
            raise ValueError(
                f'The teacher has num_classes={numbers[0]}, but the student num_classes={numbers[1]}. Set '
                'num_classes of the teacher (teacher.model) to the number of the student, or '
                f'{_MAP_REMEDY}.'
            )

    def _check_names(self, names, source: str) -> None:
        """Raise ValueError if teacher and student have different classes and there is no label_map."""
        student = _student_classes(self.top)[0]
        if self.label_map is not None or not names or not student or tuple(names) == student:
            return
        raise ValueError(
            f'{source} has the {len(names)} classes {_listed(names)}, but the student the {len(student)} '
            f'classes {_listed(student)}. Give both the same classes, or {_MAP_REMEDY}.'
        )


@STAGES.register_module()
class TeacherStage(_Teacher, TrainStage):
    """The training of the teacher on the labeled images.

    Without ``teacher`` at the top level, the teacher has the network and the settings of the student, as in ST
    and ST++. With ``teacher_checkpoint`` there is no training, see :class:`TeacherCheckpointStage`.

    ``teacher=dict(...)`` defines the teacher by parts of a config (``model``, ``train_dataloader``,
    ``optim_wrapper``, ``param_scheduler``, ``train_cfg``, ``test_dataloader``, ...). They are merged into the
    top level for this training. A part with a ``type`` replaces the one at the top level. ``config`` is a
    config file that replaces the top level; the parts are then merged into it. ``label_map`` maps classes of
    the teacher to classes of the student.

    Args:
        cfg (dict, optional): Same as in :class:`TrainStage`, merged last.
        extra_hooks (list[dict], optional): Same as in :class:`TrainStage`.
    """

    @classmethod
    def kind_for(cls, top: Config) -> type[Stage]:
        return TeacherCheckpointStage if top.get('teacher_checkpoint') else cls

    @property
    def has_own_data(self) -> bool:
        """Whether the teacher's own config defines its images."""
        return self._file is not None

    @property
    def image_kinds(self) -> tuple[str, ...]:
        return () if self.has_own_data else super().image_kinds

    def _base(self) -> Config:
        return self._teacher_config()

    def _prepare(self, cfg: Config) -> None:
        dataset = cfg.train_dataloader.dataset
        if 'pseudo_labeled' in dataset:
            dataset.pseudo_labeled = None

    def check(self) -> None:
        super().check()
        meanings = meanings_of_config(self.config(), 'train')
        names = list(meanings[0].classes) if meanings else None
        if self._file is not None:
            self._check_names(names, f'teacher.config={self._given["config"]!r}')
        if self.label_map is not None:
            number = len(names or ()) or num_classes(self.config())
            self.label_map.indices(names, number, 'the teacher')


class TeacherCheckpointStage(_Teacher):
    """A teacher from a checkpoint, ``teacher_checkpoint``, instead of a training.

    ``teacher`` defines its network and test pipeline, as in :class:`TeacherStage`. Without it they are those of
    the top level. The stage loads the checkpoint once, to raise errors before the labeling, and writes the
    config for the labeling to its folder.

    Args:
        cfg (dict, optional): Merged into the teacher's config.
        extra_hooks (list[dict], optional): Not used.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The checkpoint does not match the teacher's network, or the student has other classes.
    """

    def __init__(
        self, name, folder, top, others, cfg: dict | None = None, extra_hooks: list | None = None
    ) -> None:
        super().__init__(name, folder, top, others)
        self._changes = cfg or {}
        paths = top.teacher_checkpoint
        self._paths = [paths] if isinstance(paths, str) else list(paths)

    def config(self) -> Config:
        cfg = self._teacher_config()
        cfg.merge_from_dict(copy.deepcopy(dict(self._changes)))
        cfg.work_dir = self.folder
        return cfg

    def needs(self) -> set[str]:
        return set()

    def settings(self) -> dict:
        return dict(model=self.config().model.to_dict(), checkpoint_sha256=self._digests)

    @functools.cached_property
    def _digests(self) -> list[str]:
        return [checkpoint_digest(path) for path in self._paths]

    def check(self) -> None:
        for path in self._paths:
            if '://' not in path and not osp.isfile(path):
                raise FileNotFoundError(
                    f'teacher_checkpoint={path!r} does not exist. Give the path or the URL of a checkpoint.'
                )
        super().check()

    def checkpoint(self, which: str = 'last') -> str:
        """Return the given checkpoint, or the last one of several.

        Raises:
            ValueError: ``which`` is 'best'.
        """
        if which != 'last':
            raise ValueError(
                f'checkpoint={which!r} does not work with teacher_checkpoint. Set '
                "checkpoint='last' in the labeling stage, and teacher_checkpoint to the checkpoint to use."
            )
        return self._paths[-1]

    def scoring_checkpoints(self) -> list[str]:
        return self._paths

    def check_scoring(self, stage: str) -> None:
        if len(self._paths) < 2:
            raise ValueError(
                f'stages.{stage} ranks images by several checkpoints of one training, but teacher_checkpoint='
                f'{self._paths[0]!r} is only one. Give a list of them in order, set '
                f"stages.{stage}.type='RandomSelectStage', or use ST, which does not rank images."
            )

    def run(self, logger: MMLogger) -> None:
        cfg = self.config()
        for path in self._paths:
            source = f'teacher_checkpoint={path!r}'
            saved = meaning_of_checkpoint(read_checkpoint(path), path)
            if saved is not None:
                self._check_names(saved.classes, source)
            self._check_names(self._load(cfg, path).classes, source)
        logger.info(f'{self.name}: given, {", ".join(self._paths)}; nothing is trained')
        on_first_rank(self._dump, cfg)

    def _load(self, cfg: Config, path: str) -> Predictor:
        try:
            return Predictor(cfg, path, 'cpu', self.label_map)
        except ValueError as error:
            if self._given and self._fits_student(path):
                raise ValueError(
                    f'teacher_checkpoint={path!r} fits the network of the student (`model`) and not that of '
                    '`teacher`. Give the checkpoint of the teacher, or remove `teacher` to label with the '
                    "student's network."
                ) from None
            raise ValueError(f'teacher_checkpoint: {error}') from None

    def _fits_student(self, path: str) -> bool:
        try:
            Predictor(top_level(self.top), path, 'cpu')
        except ValueError:
            return False
        return True

    def _dump(self, cfg: Config) -> None:
        name = Path(self.top.filename or 'config.py').name
        with whole_file(osp.join(self.folder, name)) as path:
            cfg.dump(path)


_MAP_REMEDY = (
    "set teacher.label_map=dict(TEACHER_CLASS='STUDENT_CLASS', ...), with 255 for classes to ignore"
)


def _student_classes(top: Config) -> tuple[tuple[str, ...] | None, list | None]:
    """Return names and palette of the classes of the labeled images; None if the config does not set them."""
    found = meanings_of_config(top, 'train')
    if not found:
        return None, None
    for leaf in stage_leaves(top, 'train'):
        kind = leaf.dataset.get('of') or leaf.dataset.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        for meta in (leaf.dataset.get('metainfo') or {}, getattr(kind, 'METAINFO', None) or {}):
            palette = meta.get('palette')
            if palette and len(palette) == len(found[0].classes):
                return found[0].classes, [list(color) for color in palette]
    return found[0].classes, None


def _listed(names, most: int = 6) -> str:
    shown = ', '.join(map(str, names[:most]))
    return shown if len(names) <= most else f'{shown}, …'
