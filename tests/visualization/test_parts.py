import numpy as np
import pytest
from PIL import Image

from mmseg_semi.visualization import color_counts, color_parts, embed, save_scatter
from mmseg_semi.visualization.panels import IGNORE_COLOR

PALETTE = [[0, 0, 0], [200, 100, 0]]


def test_parts_are_shades_of_their_class():
    label, part = np.array([[0, 1, 1, 1, 255, 1]]), np.array([[1, 0, 1, 2, -1, -1]])
    colors = color_parts(label, part, PALETTE, 3)[0].tolist()
    assert colors[:4] == [[0, 0, 0], [100, 50, 0], [200, 100, 0], [228, 178, 128]]
    assert colors[4:] == [list(IGNORE_COLOR)] * 2
    assert color_parts(label, part * 0, PALETTE, 1)[0, 1].tolist() == PALETTE[1]


def test_numbers_of_classes_have_three_colors():
    colors = color_counts(np.array([[1, 2, 3, 21]]))[0]
    assert len(np.unique(colors, axis=0)) == 3
    assert (colors[2] == colors[3]).all()
    assert color_counts(np.array([[1]]), [[1, 2, 3]])[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize('method', ['tsne', 'pca'])
def test_clusters_stay_together_in_the_plane(method):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((2, 1, 8)) * 5
    features = (centers + rng.standard_normal((2, 15, 8)) * 0.1).reshape(30, 8)
    points = embed(features, method, seed=1)
    assert points.shape == (30, 2)
    middles = points.reshape(2, 15, 2).mean(axis=1)
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == np.repeat([0, 1], 15)).all()
    assert np.array_equal(points, embed(features, method, seed=1))


def test_bad_embeddings_are_refused():
    with pytest.raises(ValueError, match="method='umap' is unknown"):
        embed(np.ones((9, 3)), 'umap')
    with pytest.raises(ValueError, match='4 features are too few'):
        embed(np.ones((4, 3)))


def test_scatter_has_the_colors_of_the_classes(tmp_path):
    path = tmp_path / 'deep' / 'scatter.png'
    points = np.random.default_rng(0).random((40, 2))
    label, part = np.repeat([0, 1], 20), np.tile([0, 1], 20)
    save_scatter(str(path), points, label, part, PALETTE, ['sky', 'road'], 'title')
    picture = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
    for color in PALETTE:
        assert (picture == color).all(axis=1).sum() > 50
