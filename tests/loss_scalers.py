"""A gradient scaler on the CPU, which torch has since 2.3."""

from __future__ import annotations

from unittest import mock

import torch

if hasattr(torch.amp, 'GradScaler'):

    def cpu_grad_scaler(**options) -> torch.amp.GradScaler:
        """Build torch's own."""
        return torch.amp.GradScaler('cpu', **options)

else:
    from torch.cuda.amp import grad_scaler

    class _GradScaler(grad_scaler.GradScaler):
        """States and steps are torch's; what it has for GPUs alone is written out."""

        def scale(self, outputs):
            if self._scale is None:
                self._lazy_init_scale_growth_tracker(outputs.device)
            return outputs * self._scale

        def _unscale_grads_(self, optimizer, inv_scale, found_inf, allow_fp16):
            grads = [p.grad for group in optimizer.param_groups for p in group['params']]
            grads = [grad for grad in grads if grad is not None]
            finite = torch.stack([grad.isfinite().all() for grad in grads]).all()
            for grad in grads:
                grad.mul_(inv_scale)
            return {finite.device: (~finite).float()}

        def update(self, new_scale=None):
            with mock.patch.object(torch, '_amp_update_scale_', _update_scale):
                super().update(new_scale)

    def _update_scale(scale, tracker, found_inf, growth_factor, backoff_factor, growth_interval):
        if found_inf:
            scale.mul_(backoff_factor)
            tracker.zero_()
        elif tracker + 1 == growth_interval:
            scale.mul_(growth_factor)
            tracker.zero_()
        else:
            tracker.add_(1)

    def cpu_grad_scaler(**options) -> _GradScaler:
        """Build that of GPUs with the missing parts."""
        with mock.patch.object(grad_scaler, 'amp_definitely_not_available', return_value=False):
            return _GradScaler(**options)
