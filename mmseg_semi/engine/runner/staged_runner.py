"""Run methods with several trainings in stages: ST, ST++, GPS."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import os.path as osp
import time
import traceback
import uuid
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, get_world_size
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, RUNNERS

from ...compat import set_up_processes
from ...datasets.partition import fill_partition
from ...datasets.walk import image_files, loader_configs
from ...self_training.images import ImagePool
from ...self_training.output import (
    make_folders,
    on_first_rank,
    whole_file,
    write_bytes,
    writing,
)
from ..hooks.startup_check_hook import check_held_out
from .stages import LabelStage, Stage, TrainStage, build_stages, told
from .teacher_stage import TeacherStage


@RUNNERS.register_module()
class StagedRunner:
    """Run the ``stages`` of a config in ``WORK_DIR/<name>/``, each one after the stages that it needs.

    With ``runner_type='StagedRunner'``, `tools/train.py` (also that of MMSegmentation) builds this class
    instead of MMEngine's Runner. The top level of the config is an ordinary config of the last training, which
    the stock test tools can read. A stage defines the differences to it. A restarted run, with or without
    ``--resume``, skips finished stages and continues where it stopped. A stage that was started with other
    settings or other results raises an error.

    ``WORK_DIR/stages/<name>.json`` stores the settings of a stage and whether it is finished. To repeat a
    stage, remove its folder and the folders of the stages after it.

    Args:
        cfg (Config): Config with ``stages`` and ``run_stages`` (list of names, or None for all).

    Raises:
        ValueError: A stage does not exist, was started with other settings, or needs an unfinished stage.
        FileNotFoundError: The unlabeled images are missing.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = copy.deepcopy(cfg)
        self.work_dir = self.cfg.work_dir
        # Set the scope now, since classes are looked up by name before the first Runner sets it.
        DefaultScope.get_instance(
            f'staged_{uuid.uuid4().hex}', scope_name=self.cfg.get('default_scope', 'mmseg')
        )
        set_up_processes(self.cfg)
        self.stages = build_stages(self.cfg)
        self._chosen = self._choose(self.cfg.get('run_stages'))
        self.logger = self._build_logger()

    @classmethod
    def from_cfg(cls, cfg: Config) -> StagedRunner:
        """Build the runner. MMEngine's registry calls this method."""
        return cls(cfg)

    def _choose(self, names: list[str] | str | None) -> list[str]:
        names = [names] if isinstance(names, str) else names
        unknown = [name for name in names or () if name not in self.stages]
        if unknown:
            raise ValueError(
                f'There is no stage {unknown[0]!r}. Choose one of {", ".join(self.stages)}.'
            )
        return [name for name in self.stages if not names or name in names]

    def _build_logger(self) -> MMLogger:
        name = f'stages_{time.strftime("%Y%m%d_%H%M%S")}_{uuid.uuid4().hex[:6]}'
        log_dir = osp.join(self.work_dir, 'stages')
        with writing(log_dir):
            os.makedirs(log_dir, exist_ok=True)
        self._log_file = osp.join(log_dir, f'{name}.log')
        return MMLogger.get_instance(
            name,
            log_file=self._log_file,
            log_level=self.cfg.get('log_level', 'INFO'),
        )

    def train(self) -> None:
        """Run the unfinished stages among the selected ones, and log the path of the result."""
        self._check()
        on_first_rank(self._dump_config)
        for name in self._chosen:
            self._run(self.stages[name])
        self._report()

    def _run(self, stage: Stage) -> None:
        if on_first_rank(self._begin, stage):
            self.logger.info(f'Stage {stage.name} is finished: {stage.folder}')
            return
        self.logger.info(f'Stage {stage.name} ({type(stage).__name__}) in {stage.folder}')
        started = time.time()
        try:
            stage.run(self.logger)
        except (OSError, ValueError):
            # The tools only print the message. The traceback is in the log.
            with open(self._log_file, 'a', encoding='utf-8') as file:
                traceback.print_exc(file=file)
            raise
        barrier()
        on_first_rank(self._finish, stage)
        self.logger.info(f'Stage {stage.name} took {time.time() - started:.0f} s')

    def _dump_config(self) -> None:
        name = osp.basename(self.cfg.filename) if self.cfg.filename else 'config.py'
        with whole_file(osp.join(self.work_dir, name)) as path:
            self.cfg.dump(path)

    def _check(self) -> None:
        """Raise errors now that would otherwise occur after hours."""
        for stage in self.stages.values():
            stage.check()
        pool = ImagePool(self.cfg, _unlabeled_images(self.cfg))
        on_first_rank(pool.check_files)
        if any(isinstance(stage, LabelStage) for stage in self.stages.values()):
            pool.check_outside(self.work_dir)
        self._images = self._fingerprints(pool)
        self.logger.info(
            f'{" → ".join(self._chosen)} with {len(pool)} unlabeled images, in {self.work_dir}'
        )
        parts = {'unlabeled': pool.dataset}
        for stage in self.stages.values():
            # The teacher has its own validation set, so its own check would not find these images.
            if isinstance(stage, TeacherStage) and stage.has_own_data:
                dataset = stage.config().train_dataloader.dataset
                parts["teacher's training"] = DATASETS.build(dataset)
        for _, loader in loader_configs(self.cfg, 'val'):
            validation = DATASETS.build(copy.deepcopy(loader['dataset']))
            check_held_out(parts, validation)

    def _fingerprints(self, pool: ImagePool) -> dict[str, str]:
        """Return number and digest of the names of the labeled and of the unlabeled images."""
        labeled = fill_partition(self.cfg.train_dataloader.dataset).get('labeled')
        paths = image_files(DATASETS.build(copy.deepcopy(labeled))) if labeled else []
        folder = osp.commonpath([osp.dirname(path) for path in paths]) if paths else ''
        names = {
            'labeled': [osp.relpath(path, folder) for path in paths],
            'unlabeled': pool.ids,
        }
        return {
            kind: f'{len(of)}, SHA-256 {hashlib.sha256(os.fsencode(chr(0).join(of))).hexdigest()}'
            for kind, of in names.items()
        }

    # ------------------------------------------------------------------ what is on the disk
    def _mark(self, name: str) -> str:
        return osp.join(self.work_dir, 'stages', f'{name}.json')

    def _read(self, name: str) -> dict[str, Any]:
        """Return the stored information on a stage; empty if its folder was removed."""
        mark = self._mark(name)
        if not osp.isfile(mark) or not osp.isdir(self.stages[name].folder):
            return {}
        with open(mark, encoding='utf-8') as file:
            return json.load(file)

    def _write(self, stage: Stage, **state) -> None:
        mark = self._mark(stage.name)
        make_folders([mark])
        write_bytes(mark, json.dumps(state, indent=1, default=str).encode())
        # Create the folder after the mark: with an old mark, a new folder would count as finished.
        make_folders([osp.join(stage.folder, '')])

    def _begin(self, stage: Stage) -> bool:
        """Whether the stage is finished. If not, check that it can start or continue, and mark it."""
        self._check_settings(stage)
        inputs = {}
        for name in sorted(stage.needs()):
            finished = self._read(name).get('finished')
            if not finished:
                raise ValueError(
                    f'Stage {stage.name} needs the result of {name}, which is not finished. Run it first '
                    f'(--stages {name} {stage.name}).'
                )
            inputs[name] = finished
        known = self._read(stage.name)
        if known and known['inputs'] != inputs:
            changed = [name for name in inputs if known['inputs'].get(name) != inputs[name]]
            raise ValueError(
                f'Stage {stage.name} was started with an earlier result of {", ".join(changed)}. '
                f'{_remedy(stage)}'
            )
        if not known:
            self._write(
                stage,
                settings=_stored(stage.settings()),
                inputs=inputs,
                images=self._images,
                processes=get_world_size(),
                finished=None,
            )
        return bool(known.get('finished'))

    def _check_settings(self, stage: Stage) -> None:
        """Raise ValueError if the stage, or one whose result it uses, was started with other settings."""
        for name in stage.needs():
            self._check_settings(self.stages[name])
        known, settings = self._read(stage.name), _stored(stage.settings())
        if known and known['settings'] != settings:
            key, before, now = first_difference(known['settings'], settings)
            raise ValueError(
                f'Stage {stage.name} was started with {key}={before}, but this run has {now}. '
                f'{_remedy(stage)}'
            )
        for kind in stage.image_kinds if known else ():
            # Marks of earlier versions do not have it.
            before = known.get('images', self._images)[kind]
            if before != self._images[kind]:
                raise ValueError(
                    f'Stage {stage.name} was started with other {kind} images ({before}) than this run has '
                    f'({self._images[kind]}). {_remedy(stage)}'
                )
        if known and isinstance(stage, TrainStage) and known['processes'] != get_world_size():
            self.logger.warning(
                f'Stage {stage.name} was started on {known["processes"]} process(es), but this run has '
                f'{get_world_size()}, which changes its effective batch size.'
            )

    def _finish(self, stage: Stage) -> None:
        known = self._read(stage.name)
        # An identifier of this result, which later stages compare.
        self._write(stage, **{**known, 'finished': uuid.uuid4().hex})

    def _report(self) -> None:
        trainings = [stage for stage in self.stages.values() if isinstance(stage, TrainStage)]
        last = trainings[-1]
        if not on_first_rank(self._read, last.name).get('finished'):
            return
        path = osp.abspath(last.checkpoint())
        # Without a line end, like the pointers of MMEngine.
        on_first_rank(write_bytes, osp.join(self.work_dir, 'last_checkpoint'), path.encode())
        self.logger.info(f'Trained: {told(stage for stage in trainings if stage.trained())}')
        self.logger.info(f'The result is the last checkpoint of stage {last.name}: {path}')


def _unlabeled_images(cfg: Config) -> dict:
    """Return the config of the unlabeled images, which all stages after the teacher use."""
    dataset = fill_partition(cfg.train_dataloader.dataset)
    images = dataset.get('unlabeled') or (dataset.get('pseudo_labeled') or {}).get('images')
    if images is None:
        raise ValueError(
            'train_dataloader.dataset.pseudo_labeled.images is not set. Give the config of the unlabeled '
            "images, for example dict(type='UnlabeledDataset', img_dir=...)."
        )
    return copy.deepcopy(images)


def _stored(settings: dict) -> dict:
    """Convert settings to the form in which a mark stores them."""
    return json.loads(json.dumps(settings, default=str))


def _remedy(stage: Stage) -> str:
    return (
        f'Use another --work-dir, or remove {stage.folder} and the folders of the stages after it to repeat '
        'them.'
    )


def first_difference(before, now, key: str = '') -> tuple[str, Any, Any]:
    """Return dotted key and both values of the first difference between two settings."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                return first_difference(
                    before.get(name), now.get(name), f'{key}.{name}' if key else name
                )
    return key, before, now
