"""Correlation maps and what they propagate, against loops written from docs/corrmatch.md."""

import math

import pytest
import torch

from mmseg_semi.functional.correlation import (
    class_maxima,
    correlation_map,
    correlation_region,
    propagate_labels,
    propagate_logits,
)


def test_correlation_and_propagated_logits():
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 3, 2, 3, dtype=torch.float64)
    logits = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    got = correlation_map(query, key)
    spread = propagate_logits(logits, got)
    for n in range(2):
        for i in range(6):
            q = query[n].flatten(1)[:, i]
            scores = [float(q @ key[n].flatten(1)[:, j]) / math.sqrt(3) for j in range(6)]
            total = sum(map(math.exp, scores))
            for j in range(6):
                assert float(got[n, i, j]) == pytest.approx(math.exp(scores[j]) / total)
        for c in range(4):
            for j in range(6):
                expected = sum(float(logits[n, c].flatten()[i] * got[n, i, j]) for i in range(6))
                assert float(spread[n, c].flatten()[j]) == pytest.approx(expected)


def test_the_gradient_of_propagated_logits_is_that_of_the_map_alone():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    query = torch.randn(1, 3, 2, 2, requires_grad=True)
    propagate_logits(logits, correlation_map(query, query.detach())).square().sum().backward()
    assert logits.grad is None
    assert (query.grad != 0).any()


def test_region_is_what_exceeds_half_of_the_range():
    row = torch.tensor([[[1.0, 2.0], [2.1, 3.0]], [[5.0, 5.0], [5.0, 5.0]]])
    region = correlation_region(row, (2, 2))
    assert region.tolist() == [[[False, False], [True, True]], [[False, False], [False, False]]]


def slow_propagation(label, confident, rows, allowed, tau):
    label, counted = label.clone(), confident.clone()
    size = label.shape[1:]
    for n in range(len(label)):
        for row in rows[n]:
            region = correlation_region(row[None], tuple(size))[0]
            pixels = [
                (y, x)
                for y in range(size[0])
                for x in range(size[1])
                if region[y, x] and allowed[n, y, x]
            ]
            classes = [
                int(label[n, y, x])
                for y, x in pixels
                if confident[n, y, x] and label[n, y, x] != 255
            ]
            if not classes or len(classes) / len(pixels) < tau:
                continue
            top = min(set(classes), key=lambda c: (-classes.count(c), c))
            if classes.count(top) / len(classes) > tau:
                for y, x in pixels:
                    label[n, y, x], counted[n, y, x] = top, True
    return label, counted


@pytest.mark.parametrize('tau', [0.0, 0.3, 0.55, 0.9])
def test_labels_propagate_over_regions(tau):
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, 3, (2, 12, 12), generator=generator)
    label[:, :, 6:] = 1
    label[0, :2] = 255
    confident = torch.rand(2, 12, 12, generator=generator) < 0.7
    allowed = torch.ones_like(confident)
    allowed[0, :, 10:] = False
    allowed[1, 3:] = False
    rows = torch.rand(2, 9, 4, 4, generator=generator)
    before = label.clone()
    got = propagate_labels(label, confident, rows, allowed, torch.tensor(tau), 3)
    expected = slow_propagation(label, confident, rows, allowed, tau)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    assert torch.equal(label, before)
    assert torch.equal(got[1], confident) == (tau == 0.9)
    assert not (got[1] & ~confident & ~allowed).any()


def test_class_maxima():
    label = torch.tensor([[[0, 0, 2, 255]]])
    confidence = torch.tensor([[[0.4, 0.9, 0.6, 0.99]]])
    valid = torch.tensor([[[True, False, True, True]]])
    assert class_maxima(label, confidence, 4, valid).tolist() == pytest.approx([0.4, 0, 0.6, 0])
