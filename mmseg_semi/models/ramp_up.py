"""When the students of GPS are good enough that their teacher learns from them in full."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


class AdaptiveRampUp(nn.Module):
    """The weight of GPS's feedback, and the comparison that ends its growth (Eq. 9).

    :class:`~mmseg_semi.engine.AdaptiveRampUpHook` sets the weight and tells when an epoch ends. The comparison
    is in buffers, so that a resumed training continues it.

    Attributes:
        weight (float): w(e) of Eq. 9 in the running epoch.
        guidance (float): The mirrored weight w(E + 1 - e), which falls from 1; only ``guidance='ramp_down'``
            uses it.
        labeled_sums (Tensor): float64 (3,), over all ranks in the running epoch: the cross-entropy of labeled
            images of the students (their mean), that of the teacher, and the number of batches with labels.
        latch_epoch (Tensor): int64 scalar, the epoch that ended the ramp-up; 0 before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = 1.0
        self.guidance = 1.0
        self.register_buffer('labeled_sums', torch.zeros(3, dtype=torch.float64))
        self.register_buffer('latch_epoch', torch.zeros((), dtype=torch.int64))

    def begin(self) -> None:
        """Forget the ramp-up of the training that loaded weights come from."""
        self.labeled_sums.zero_()
        self.latch_epoch.zero_()

    @torch.no_grad()
    def observe(self, students: Tensor, teacher: Tensor, has_label: Tensor) -> None:
        """Add a labeled batch to the means of the epoch, the same on all ranks.

        Args:
            students (Tensor): Scalar, mean cross-entropy of the students. A batch where this or the
                teacher's is not finite is left out.
            teacher (Tensor): Scalar, cross-entropy of the teacher.
            has_label (Tensor): bool scalar. A batch without a label is left out, since its loss of 0 would
                end the ramp-up.
        """
        values = torch.stack([students, teacher, torch.ones_like(teacher)]).to(self.labeled_sums)
        counts = has_label & values.isfinite().all()
        values = torch.where(counts, values, torch.zeros_like(values))
        # In each step instead of at the end of the epoch, so that a checkpoint holds the sums of all ranks.
        all_reduce(values)
        self.labeled_sums += values

    def end_epoch(self, epoch: int, adaptive: bool = True) -> tuple[float, float] | None:
        """End the ramp-up if the students have caught up with the teacher, and begin new means.

        Means over an epoch are compared, because a single batch would decide by chance. The mean of both
        students takes part, which is half of the paper's sum.

        Args:
            epoch (int): From 1.
            adaptive (bool): False compares nothing.

        Returns:
            tuple[float, float], optional: Means of students and teacher; None without a labeled pixel.
        """
        students, teacher, number = self.labeled_sums.tolist()
        self.labeled_sums.zero_()
        if not number:
            return None
        if adaptive and not self.latch_epoch and students <= teacher:
            self.latch_epoch.fill_(epoch)
        return students / number, teacher / number
