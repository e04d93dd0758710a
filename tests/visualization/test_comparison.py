"""The picture of a comparison."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmseg_semi.visualization import Estimate, save_comparison


def test_points_bars_and_baseline_are_where_the_figures_are(tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', keep)
    path = tmp_path / 'plot.png'
    estimates = {'suponly': Estimate([50, 54], [55, 55]), 'imas': Estimate([60], [62])}
    save_comparison(path, estimates, 'mIoU', 'suponly')
    assert Image.open(path).size[0] > 500
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ['suponly', 'imas']
    assert axes.yaxis_inverted()
    (bars,) = axes.containers
    points, _, (lines,) = bars
    np.testing.assert_allclose(np.asarray(points.get_xdata(), dtype=float), [52, 60])
    spread = 8**0.5
    np.testing.assert_allclose(lines.get_segments()[0][:, 0], [52 - spread, 52 + spread])
    np.testing.assert_allclose(lines.get_segments()[1][:, 0], [60, 60])
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in axes.lines]
    assert any(len(x) == 2 and np.allclose(x, 52) for x in drawn), 'no line at the baseline'
    assert any(len(x) == 2 and np.allclose(x, [55, 62]) for x in drawn), 'no best'


def test_nothing_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match='nothing to show: no run is finished'):
        save_comparison(tmp_path / 'plot.png', {}, 'mIoU')
