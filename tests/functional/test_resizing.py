"""Label maps on the grid of features: places by hand."""

import pytest
import torch

from mmseg_semi.functional.resizing import resize_nearest


def test_grid_takes_the_pixel_at_its_center():
    ramp = torch.arange(12).view(1, 1, 12).expand(2, 9, 12)
    assert resize_nearest(ramp, (3, 3))[0, 0].tolist() == [2, 6, 10]
    assert resize_nearest(ramp, (3, 4), True)[0, 0].tolist() == [0, 4, 7, 11]
    rows = torch.arange(9).view(1, 9, 1).expand(2, 9, 12)
    assert resize_nearest(rows, (3, 1))[1, :, 0].tolist() == [1, 4, 7]
    mask = torch.rand(2, 9, 12) < 0.5
    assert torch.equal(resize_nearest(mask, (9, 12)), mask)
    assert torch.equal(resize_nearest(mask, (9, 12), True), mask)
    assert resize_nearest(mask, (1, 1), True).shape == (2, 1, 1)


@pytest.mark.parametrize(('full', 'small'), [(513, 129), (769, 193), (513, 65)])
def test_grid_of_aligned_corners_is_every_fourth_pixel(full, small):
    ramp = torch.arange(full).view(1, 1, full).expand(1, full, full)
    step = (full - 1) // (small - 1)
    assert resize_nearest(ramp, (small, small), True)[0, 0].tolist() == list(range(0, full, step))


def test_grid_of_a_device_needs_no_waiting():
    label = torch.zeros(2, 9, 12, dtype=torch.int64, device='meta')
    assert resize_nearest(label, (3, 4)).device.type == 'meta'
