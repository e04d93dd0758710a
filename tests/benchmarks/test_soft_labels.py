"""What benchmarks/soft_labels.py measures of one image, by hand."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))

import soft_labels


def probs():
    """Two pixels of three classes."""
    return torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]).T[None, :, None]


def test_the_mask_alone():
    found = soft_labels.figures(probs(), None)
    assert found.kept == pytest.approx(0.6)
    assert found.distance == pytest.approx(0.4)
    assert found.largest == pytest.approx(0.4)


def test_two_classes():
    """153 and 76 of 255 for the first pixel, 153 and 51 for the second, each over their sum."""
    found = soft_labels.figures(probs(), 2)
    assert found.kept == pytest.approx((0.9 + 0.8) / 2)
    first = abs(0.6 - 153 / 229) + abs(0.3 - 76 / 229) + 0.1
    second = abs(0.6 - 153 / 204) + abs(0.2 - 51 / 204) + 0.2
    assert found.distance == pytest.approx((first + second) / 4, abs=1e-4)
    assert found.largest == pytest.approx(max(first, second) / 2, abs=1e-4)


def test_all_classes_lose_the_rounding_alone():
    found = soft_labels.figures(probs(), 3)
    assert found.kept == pytest.approx(1)
    assert found.largest < 0.005


def test_the_table():
    found = {None: [soft_labels.figures(probs(), None)], 3: [soft_labels.figures(probs(), 3)]}
    lines = soft_labels.table(found).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith('| mask alone | ')
    assert lines[3].startswith('| 3 | ')
    content = soft_labels.encode_soft_label(np.zeros((2, 1, 2), np.uint8))
    assert Image.open(io.BytesIO(content)).size == (2, 2)
