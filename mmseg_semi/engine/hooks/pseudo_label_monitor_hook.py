"""Warn if no unlabeled pixel is used."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS


@HOOKS.register_module()
class PseudoLabelMonitorHook(Hook):
    """Warn if the confident ratio stays 0, so that no unlabeled pixel enters the loss.

    It reads values that MMEngine has already copied to the host for the log.

    Args:
        interval (int): Iterations over which the ratio is averaged.
        patience (int): Number of consecutive intervals with ratio 0 before each warning.
        key (str): Scalar to monitor: the fraction of unlabeled pixels in the loss.
    """

    priority = 'LOW'

    def __init__(
        self, interval: int = 100, patience: int = 3, key: str = 'confident_ratio'
    ) -> None:
        if interval < 1 or patience < 1:
            raise ValueError(f'interval={interval} and patience={patience} must be at least 1.')
        self.interval = interval
        self.patience = patience
        self.key = key
        self._zeros = 0
        self._seen = 0

    def before_train(self, runner) -> None:
        self._zeros = self._seen = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not outputs or self.key not in outputs:
            return
        self._seen += 1
        if self._seen % self.interval:
            return
        ratio = runner.message_hub.get_scalar(f'train/{self.key}').mean(self.interval)
        self._zeros = self._zeros + 1 if ratio == 0 else 0
        if self._zeros == self.patience:
            self._zeros = 0
            runner.logger.warning(
                f'{self.key} has been 0 for {self.interval * self.patience} iterations: no unlabeled pixel '
                'enters the loss. Lower semi_train_cfg.tau if the method has it, start later '
                '(semi_train_cfg.unlabeled_start), or use pre-trained weights.'
            )
