"""Decide when PrevMatch stores the student as an earlier model."""

from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.segmentors.prevmatch import PrevMatch
from ..accumulation import accumulation, due_at
from ._common import is_training, unwrap

#: Key in the Runner's MessageHub, which checkpoints contain and resumed runs restore.
BEST = 'best_score_of_earlier_models'


@HOOKS.register_module()
class EarlierModelHook(Hook):
    """Store the student after each validation with a new best score, or at a fixed interval.

    The first is the rule of PrevMatch's code. It uses the labels of the validation set and needs frequent
    validations. The second does not validate.

    All ranks store the same models. Checkpoints contain them and the best score. MMEngine writes a checkpoint
    before it validates, so a resumed run repeats the validation of its first iteration. A training that starts
    from weights (``load_from``) starts without earlier models.

    Args:
        interval (int, optional): Iterations between models. A model that is due inside an accumulated step is
            stored at its end. Default None: after validations.
        metric (str): Metric of the predicting network in the validation; larger is better.
        begin (int): Iteration before which no model is stored. With an interval, iteration of the first model
            (``base_only_epoch`` of the code, in epochs).

    Raises:
        ValueError: An argument is out of range, the model has no earlier models, or the run has no validation.
    """

    # Before the hooks that save, which have lower priorities.
    priority = 'NORMAL'

    def __init__(self, interval: int | None = None, metric: str = 'mIoU', begin: int = 0) -> None:
        if interval is not None and interval < 1:
            raise ValueError(f'EarlierModelHook.interval must be at least 1, got {interval}.')
        if begin < 0:
            raise ValueError(f'EarlierModelHook.begin must be at least 0, got {begin}.')
        self.interval, self.metric, self.begin = interval, metric, begin

    @property
    def reading(self) -> str:
        """The rule, for the first lines of the log."""
        if self.interval is None:
            return f'an earlier model after each validation with the best {self.metric} so far'
        return f'an earlier model every {self.interval} iterations'

    @property
    def validates_again(self) -> bool:
        """Whether a resumed run needs the validation of the iteration that it resumes from."""
        return self.interval is None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume and is_training(runner):
            return
        weights = checkpoint.get('state_dict', checkpoint)
        for key in [key for key in weights if key.startswith('earlier.')]:
            del weights[key]

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, PrevMatch):
            raise ValueError(
                f'EarlierModelHook does not support {type(model).__name__}, which has no earlier models. '
                'Remove the hook from custom_hooks, or train PrevMatch.'
            )
        if self.interval is None and runner.val_loop is None:
            raise ValueError(
                'EarlierModelHook.interval=None stores a model after a validation, but this run has none. Set '
                'its interval in iterations.'
            )
        reported = getattr(runner.val_loop, 'reported_names', lambda: None)()
        if self.interval is None and reported is not None:
            # Checked now, since the first score is only available after the first validation.
            self._score(dict.fromkeys(reported, 0.0), model.semi_test_cfg['predict_on'])
        if runner.iter == 0:
            runner.message_hub.update_info(BEST, -math.inf)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.interval is None:
            return
        lengths = (self.interval, accumulation(runner), runner.max_iters, self.begin)
        if due_at(runner.iter + 1, *lengths):
            unwrap(runner.model).keep_student()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        if self.interval is not None or not is_training(runner):
            return
        model, hub = unwrap(runner.model), runner.message_hub
        score = self._score(metrics, model.semi_test_cfg['predict_on'])
        if not score > hub.get_info(BEST, -math.inf):
            return
        hub.update_info(BEST, score)
        if runner.iter >= self.begin:
            model.keep_student()
            runner.logger.info(
                f'{self.metric} {score:g} is the best so far. The student is now one of '
                f'{len(model.earlier.models)} earlier models.'
            )

    def _score(self, metrics: dict, network: str) -> float:
        for name in (f'{network}/{self.metric}', self.metric):
            if name in metrics:
                return float(metrics[name])
        raise ValueError(
            f"EarlierModelHook.metric='{self.metric}' is not a metric of the validation "
            f'({", ".join(metrics)}). Set it to one of these, without the name of the network.'
        )
