"""The adaptive ramp-up of GPS, which ends when the students have caught up with the teacher."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


class AdaptiveRampUp(nn.Module):
    """The weight of the feedback in GPS, and the comparison that ends its growth (Eq. 9).

    :class:`~mmseg_semi.engine.AdaptiveRampUpHook` sets the weight and reports the end of an epoch. The
    comparison is stored in buffers, so that a resumed training continues it.

    Attributes:
        weight (float): w(e) of Eq. 9 in the current epoch.
        guidance (float): The mirrored weight w(E + 1 - e), which falls from 1. Only ``guidance='ramp_down'``
            uses it.
        labeled_sums (Tensor): float64 (3,), sums over all ranks in the current epoch: the mean cross-entropy of
            the students on labeled images, that of the teacher, and the number of batches with labels.
        latch_epoch (Tensor): int64 scalar, the epoch in which the ramp-up ended; 0 before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = 1.0
        self.guidance = 1.0
        self.register_buffer('labeled_sums', torch.zeros(3, dtype=torch.float64))
        self.register_buffer('latch_epoch', torch.zeros((), dtype=torch.int64))

    def begin(self) -> None:
        """Reset the ramp-up, which may come from the training of a loaded checkpoint."""
        self.labeled_sums.zero_()
        self.latch_epoch.zero_()

    @torch.no_grad()
    def observe(self, students: Tensor, teacher: Tensor, has_label: Tensor) -> None:
        """Add a labeled batch to the means of the epoch, which are equal on all ranks.

        Args:
            students (Tensor): Scalar, mean cross-entropy of the students. The batch is ignored if this or
                ``teacher`` is not finite.
            teacher (Tensor): Scalar, cross-entropy of the teacher.
            has_label (Tensor): bool scalar. A batch without labels is ignored, since its loss of 0 would end
                the ramp-up.
        """
        values = torch.stack([students, teacher, torch.ones_like(teacher)]).to(self.labeled_sums)
        counts = has_label & values.isfinite().all()
        values = torch.where(counts, values, torch.zeros_like(values))
        # Reduced in each step and not at the end of the epoch: checkpoints need the sums of all ranks.
        all_reduce(values)
        self.labeled_sums += values

    def end_epoch(self, epoch: int, adaptive: bool = True) -> tuple[float, float] | None:
        """End the ramp-up if the students have caught up with the teacher, and reset the means.

        Means over an epoch are compared, because a single batch is noisy. The value of the students is their
        mean, which is half of the paper's sum.

        Args:
            epoch (int): Number of the epoch, starting at 1.
            adaptive (bool): False disables the comparison.

        Returns:
            tuple[float, float], optional: Means of students and teacher; None without labeled pixels.
        """
        students, teacher, number = self.labeled_sums.tolist()
        self.labeled_sums.zero_()
        if not number:
            return None
        if adaptive and not self.latch_epoch and students <= teacher:
            self.latch_epoch.fill_(epoch)
        return students / number, teacher / number
