"""Checkpoints that stay complete if a run is killed at any time."""

from __future__ import annotations

import contextlib
import os
import os.path as osp

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from mmseg.registry import HOOKS

from ..accumulation import accumulation, due_at
from ._common import saving

#: File with the iteration or epoch of the last validation, in the work folder.
LAST_VALIDATION = 'last_validation'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook with a safe order of its file operations.

    MMEngine removes the oldest checkpoint, writes the new one in place and then updates ``last_checkpoint``. A
    run that is killed in between may have no complete checkpoint. This hook writes the new file under a
    temporary name and renames it, does the same with ``last_checkpoint``, and then removes the oldest file. On
    remote storage with atomic writes, only the order changes.

    With gradient accumulation, a checkpoint that is due inside an optimizer step is written at the end of the
    step, since checkpoints do not contain gradients.

    MMEngine writes a checkpoint before it validates the same iteration. If a run is killed in between, the
    resumed run validates first, so that no validation is missing in the log and in the search for the best
    checkpoint. When a validation is done and a new best checkpoint is complete, the hook writes the iteration
    or epoch to ``last_validation`` in the work folder. Without this file, or if a hook has ``validates_again``,
    the resumed run validates again.

    Args: see :class:`mmengine.hooks.CheckpointHook`. ``interval='val'`` writes a checkpoint at each validation.
    """

    _looked = False

    def before_run(self, runner) -> None:
        # A validation or a test has no training loop.
        if self.interval == 'val' and isinstance(runner._train_loop, BaseLoop):
            self.interval = runner._train_loop.val_interval

    def before_train_epoch(self, runner) -> None:
        # Not in before_train, since the validation needs the preparations of all hooks in it.
        if not self._looked and not runner._resume and is_main_process():
            # Of an earlier training in the same folder.
            with contextlib.suppress(FileNotFoundError):
                os.remove(osp.join(runner.work_dir, LAST_VALIDATION))
        if not self._looked and runner._resume and _lacks_validation(runner):
            runner.logger.info(
                'Validating the resumed checkpoint, since the result of its validation was not saved.'
            )
            runner.val_loop.run()
        self._looked = True

    def after_val_epoch(self, runner, metrics) -> None:
        super().after_val_epoch(runner, metrics)
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            _write(osp.join(runner.work_dir, LAST_VALIDATION), str(_done(runner.train_loop)))

    def every_n_train_iters(self, runner, n: int, start: int = 0) -> bool:
        # A checkpoint inside an accumulation would lack the accumulated gradients.
        return due_at(runner.iter + 1, n, accumulation(runner), runner.max_iters, start)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        surplus = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                surplus.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        local = isinstance(self.file_backend, LocalBackend)
        written = f'{name}.partial' if local else name
        with saving(self.last_ckpt):
            runner.save_checkpoint(
                self.out_dir,
                written,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        if not is_main_process():
            return
        if local:
            os.replace(osp.join(self.out_dir, written), self.last_ckpt)
        _write(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        for old in surplus:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


def _lacks_validation(runner) -> bool:
    """Whether to validate the resumed iteration or epoch first. The result is the same on all ranks."""
    loop = runner.train_loop
    done = _done(loop)
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    if runner.val_loop is None or done < max(1, loop.val_begin):
        return False
    loop._decide_current_val_interval()
    if done % loop.val_interval and done != last:
        return False
    if any(getattr(hook, 'validates_again', False) for hook in runner.hooks):
        return True
    found = [None]
    if is_main_process():
        path = osp.join(runner.work_dir, LAST_VALIDATION)
        found = [osp.isfile(path) and int(_read(path)) >= done]
    broadcast_object_list(found)
    return not found[0]


def _done(loop: BaseLoop) -> int:
    """Return the finished epochs or iterations of a training loop."""
    return loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    """Write a small file atomically."""
    with open(f'{path}.partial', 'w') as file:
        file.write(text)
    os.replace(f'{path}.partial', path)
