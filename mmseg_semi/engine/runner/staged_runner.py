"""Methods that train several times, one after the other, as one run: ST, ST++, GPS."""

from __future__ import annotations

import copy
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
from ...datasets.walk import loader_configs
from ...self_training.images import ImagePool
from ...self_training.output import (
    make_folders,
    on_first_rank,
    whole_file,
    write_bytes,
    writing,
)
from ..hooks.startup_check_hook import check_held_out
from .stages import Stage, TrainStage, build_stages, told
from .teacher_stage import TeacherStage


@RUNNERS.register_module()
class StagedRunner:
    """Run the ``stages`` of a config, each in ``WORK_DIR/<name>/`` and after those that it needs.

    ``runner_type='StagedRunner'`` makes `tools/train.py`, MMSegmentation's own as well, build this in the
    place of MMEngine's Runner. The top level of the config is the ordinary config of the last training, so
    that the stock test tools read it; a stage says what differs. Run again, with or without
    ``--resume``, it skips what is finished and continues where it stopped. A stage that was started or finished
    with other settings, or from other results, is refused, not repeated and not used.

    ``WORK_DIR/stages/<name>.json`` holds what a stage was made with and whether it is finished. Who wants a
    stage done again removes its folder and those of the stages after it.

    Args:
        cfg (Config): With ``stages``, and ``run_stages`` (list of names, or None for all).

    Raises:
        ValueError: A stage that does not exist or does not fit, or whose inputs are not finished.
        FileNotFoundError: The unlabeled images are missing.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = copy.deepcopy(cfg)
        self.work_dir = self.cfg.work_dir
        # Classes are looked up by name before the first Runner sets the scope.
        DefaultScope.get_instance(
            f'staged_{uuid.uuid4().hex}', scope_name=self.cfg.get('default_scope', 'mmseg')
        )
        set_up_processes(self.cfg)
        self.stages = build_stages(self.cfg)
        self._chosen = self._choose(self.cfg.get('run_stages'))
        self.logger = self._build_logger()

    @classmethod
    def from_cfg(cls, cfg: Config) -> StagedRunner:
        """What MMEngine's registry calls."""
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
        """Run what is not finished of the chosen stages, and say where the result is."""
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
            # The tools end with the sentence alone; where it came from stays in the log.
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
        """Say now what would otherwise fail hours later."""
        for stage in self.stages.values():
            stage.check()
        pool = ImagePool(self.cfg, _unlabeled_images(self.cfg))
        on_first_rank(pool.check_files)
        self.logger.info(
            f'{" → ".join(self._chosen)} with {len(pool)} unlabeled images, in {self.work_dir}'
        )
        parts = {'unlabeled': pool.dataset}
        for stage in self.stages.values():
            # Its validation set is its own, so that its training would not notice.
            if isinstance(stage, TeacherStage) and stage.has_own_data:
                dataset = stage.config().train_dataloader.dataset
                parts["teacher's training"] = DATASETS.build(dataset)
        for _, loader in loader_configs(self.cfg, 'val'):
            validation = DATASETS.build(copy.deepcopy(loader['dataset']))
            check_held_out(parts, validation)

    # ------------------------------------------------------------------ what is on the disk
    def _mark(self, name: str) -> str:
        return osp.join(self.work_dir, 'stages', f'{name}.json')

    def _read(self, name: str) -> dict[str, Any]:
        """What is known of a stage; nothing when its folder was removed."""
        mark = self._mark(name)
        if not osp.isfile(mark) or not osp.isdir(self.stages[name].folder):
            return {}
        with open(mark, encoding='utf-8') as file:
            return json.load(file)

    def _write(self, stage: Stage, **state) -> None:
        mark = self._mark(stage.name)
        make_folders([mark])
        write_bytes(mark, json.dumps(state, indent=1, default=str).encode())
        # After the mark: beside the one of a stage whose folder was removed, it would count as finished.
        make_folders([osp.join(stage.folder, '')])

    def _begin(self, stage: Stage) -> bool:
        """Whether the stage is finished; otherwise check that it may begin or continue, and mark it begun."""
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
                f'Stage {stage.name} was started with {key}={before} and is now to be run with {now}. '
                f'{_remedy(stage)}'
            )
        if known and isinstance(stage, TrainStage) and known['processes'] != get_world_size():
            self.logger.warning(
                f'Stage {stage.name} was started on {known["processes"]} process(es) and this run has '
                f'{get_world_size()}: the effective batch of its training is another one.'
            )

    def _finish(self, stage: Stage) -> None:
        known = self._read(stage.name)
        # A name for this very result, by which the stages after it know it again.
        self._write(stage, **{**known, 'finished': uuid.uuid4().hex})

    def _report(self) -> None:
        trainings = [stage for stage in self.stages.values() if isinstance(stage, TrainStage)]
        last = trainings[-1]
        if not on_first_rank(self._read, last.name).get('finished'):
            return
        path = osp.abspath(last.checkpoint())
        # As MMEngine's own pointers, without a line end.
        on_first_rank(write_bytes, osp.join(self.work_dir, 'last_checkpoint'), path.encode())
        self.logger.info(f'Trained: {told(stage for stage in trainings if stage.trained())}')
        self.logger.info(f'The result is the last checkpoint of stage {last.name}: {path}')


def _unlabeled_images(cfg: Config) -> dict:
    """Config of the unlabeled images, which every stage after the teacher's training looks at."""
    dataset = fill_partition(cfg.train_dataloader.dataset)
    images = dataset.get('unlabeled') or (dataset.get('pseudo_labeled') or {}).get('images')
    if images is None:
        raise ValueError(
            'train_dataloader.dataset.pseudo_labeled.images is not set. Give the config of the unlabeled '
            "images, for example dict(type='UnlabeledDataset', img_dir=...)."
        )
    return copy.deepcopy(images)


def _stored(settings: dict) -> dict:
    """Settings as they come back from a mark."""
    return json.loads(json.dumps(settings, default=str))


def _remedy(stage: Stage) -> str:
    return (
        f'Take another --work-dir, or remove {stage.folder} and the folders of the stages after it to do '
        'them again.'
    )


def first_difference(before, now, key: str = '') -> tuple[str, Any, Any]:
    """Dotted key and both values of the first place where two settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                return first_difference(
                    before.get(name), now.get(name), f'{key}.{name}' if key else name
                )
    return key, before, now
