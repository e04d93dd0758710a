"""Synthetic images: the default dataset of the demo and the tests, without files.

Every image is a function of ``(seed, index, image_size)`` only. :func:`sample_scene` draws a scene as numbers,
:func:`render` paints it, and :func:`annotate` labels it if needed. They use only the uniform stream of a PCG64
generator and IEEE additions, multiplications and divisions (no sine, no drawing library). So the pixels are the
same on every machine, in every process, and for labeled and unlabeled use.
"""

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

CLASSES = ('background', 'disk', 'square', 'triangle', 'star', 'ring')
PALETTE = [[0, 0, 0], [220, 60, 60], [230, 190, 60], [70, 180, 90], [60, 120, 220], [180, 80, 200]]
IGNORE_INDEX = 255

TEXTURES = ('stripes', 'checks', 'dots', 'grain', 'plain')
HUE_SPREAD = 0.1  # half-width of a class's hues; class centers are 0.2 apart, so the ranges touch
OWN_TEXTURE = 0.85  # probability of the class's own texture; otherwise any of the five
# Radius relative to the disk's, so that all classes cover about the same area.
RADIUS = dict(disk=1.0, square=1.25, triangle=1.5, star=1.35, ring=1.2)
NOISE_GRID = 16  # side of the random table for grain and background

_SQRT2_MINUS_1 = 0.41421356237309503


@dataclass(frozen=True)
class Item:
    """One painted item: a shape (``label`` 1..5) or a distractor (``label`` 0).

    Lengths are in pixels, colors are RGB in 0..255, ``texture`` is an entry of ``TEXTURES``.
    """

    label: int
    outline: str
    center: tuple  # (row, column)
    radius: float
    aspect: float  # height over width of a distractor, 1 for shapes
    rotation: tuple  # (cosine, sine)
    colors: tuple  # two RGB triples that the texture alternates between
    texture: str
    period: float


@dataclass(frozen=True)
class Scene:
    """All parameters of an image before painting; ``items`` are in painting order."""

    size: tuple  # (height, width)
    background: Item
    items: tuple
    grid: np.ndarray  # (NOISE_GRID, NOISE_GRID) float32 in [0, 1)
    light: tuple  # change of brightness over the height and over the width
    cast: tuple  # gain of the red, green and blue channel
    noise: np.ndarray  # (3, H, W) float32, added at the end


# ------------------------------------------------------------------------------------ sampling


def sample_scene(seed, index, image_size):
    """Draw the scene of image ``index`` of the stream ``seed``.

    Args:
        seed (int): Stream of images, at least 0.
        index (int): Position in the stream, at least 0.
        image_size (tuple[int, int]): Height and width in pixels.

    Returns:
        Scene: The same on every machine and in every process.
    """
    # Use only `random`: its mapping from PCG64's integers has never changed, while numpy may change the other
    # distributions.
    random = np.random.Generator(np.random.PCG64([seed, index])).random
    height, width = image_size
    scale = min(height, width)

    def uniform(low, high):
        return low + (high - low) * random()

    def rotation():
        # Draw an angle within a quarter turn by its half-angle tangent, then quarter turns: this needs no sine.
        t = uniform(-_SQRT2_MINUS_1, _SQRT2_MINUS_1)
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        return ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[int(4 * random())]

    def colors(hue, saturation, value):
        first = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
        second_value = value * uniform(0.35, 0.75)
        second = colorsys.hsv_to_rgb((hue + uniform(-0.05, 0.05)) % 1.0, saturation, second_value)
        return tuple(tuple(255.0 * channel for channel in color) for color in (first, second))

    def place():
        return uniform(0.08, 0.92) * height, uniform(0.08, 0.92) * width

    def period():
        return max(2.0, uniform(0.06, 0.12) * scale)

    def shape():
        label = 1 + int(5 * random())
        hue = 0.2 * (label - 1) + uniform(-HUE_SPREAD, HUE_SPREAD)
        own = random() < OWN_TEXTURE
        texture = TEXTURES[label - 1] if own else TEXTURES[int(5 * random())]
        return Item(
            label=label,
            outline=CLASSES[label],
            center=place(),
            radius=RADIUS[CLASSES[label]] * uniform(0.14, 0.24) * scale,
            aspect=1.0,
            rotation=rotation(),
            colors=colors(hue, uniform(0.4, 0.95), uniform(0.5, 1.0)),
            texture=texture,
            period=period(),
        )

    def distractor():
        return Item(
            label=0,
            outline=('bar', 'blob')[int(2 * random())],
            center=place(),
            radius=uniform(0.1, 0.3) * scale,
            aspect=uniform(0.15, 0.4),
            rotation=rotation(),
            colors=colors(random(), uniform(0.2, 0.95), uniform(0.3, 1.0)),
            texture=TEXTURES[int(5 * random())],
            period=period(),
        )

    background = Item(
        label=0,
        outline='all',
        center=(0.0, 0.0),
        radius=float(height + width),
        aspect=1.0,
        rotation=rotation(),
        colors=colors(random(), uniform(0.05, 0.6), uniform(0.3, 0.95)),
        texture='cloud',
        period=uniform(0.1, 0.3) * scale,
    )
    below = [distractor() for _ in range(1 + int(3 * random()))]
    shapes = [shape() for _ in range(2 + int(3 * random()))]
    above = [distractor() for _ in range(int(2 * random()))]
    grid = random((NOISE_GRID, NOISE_GRID), dtype=np.float32)
    noise = random((3, height, width), dtype=np.float32)
    return Scene(
        size=(height, width),
        background=background,
        items=tuple(below + shapes + above),
        grid=grid,
        light=(uniform(-0.5, 0.5), uniform(-0.5, 0.5)),
        cast=(uniform(0.8, 1.2), uniform(0.8, 1.2), uniform(0.8, 1.2)),
        noise=(noise - np.float32(0.5)) * np.float32(uniform(8, 40)),
    )


# ------------------------------------------------------------------------------------ painting


def _local(item, size):
    """Return the image window that ``item`` can touch, with pixel coordinates in item axes."""
    # The corners of a star and a square are at the radius, so nothing extends beyond it.
    (row, column), reach = item.center, item.radius
    top, bottom = max(0, int(row - reach)), min(size[0], int(row + reach) + 2)
    left, right = max(0, int(column - reach)), min(size[1], int(column + reach) + 2)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
    x = np.arange(left, right, dtype=np.float32)[None] - np.float32(column)
    cos, sin = map(np.float32, item.rotation)
    return (slice(top, bottom), slice(left, right)), cos * y - sin * x, sin * y + cos * x


def _inside(item, v, u):
    """Pixels of the window within the item's outline: (h, w) bool from item axes ``v``, ``u``."""
    radius = np.float32(item.radius)
    if item.outline == 'disk':
        return v * v + u * u < radius * radius
    if item.outline == 'ring':
        distance = v * v + u * u
        inner = np.float32(0.5) * radius
        return (distance < radius * radius) & (distance > inner * inner)
    if item.outline == 'square':
        return np.maximum(np.abs(v), np.abs(u)) < np.float32(0.70710678) * radius
    if item.outline in ('triangle', 'star'):
        # A regular triangle is max(v, ±√3/2·u - v/2) < R/2; a six-pointed star is two of them.
        slanted = np.float32(0.8660254) * np.abs(u)
        half = np.float32(0.5)
        triangle = np.maximum(v, slanted - half * v) < half * radius
        if item.outline == 'triangle':
            return triangle
        return triangle | (np.maximum(-v, slanted + half * v) < half * radius)
    short = np.float32(item.aspect) * radius
    if item.outline == 'bar':
        return (np.abs(v) < short) & (np.abs(u) < np.float32(0.9) * radius)
    if item.outline == 'blob':
        return (v / short) ** 2 + (u / radius) ** 2 < 1
    return np.ones(np.broadcast_shapes(v.shape, u.shape), dtype=bool)


def _texture(item, v, u, grid):
    """Return the weight of the second color per pixel: (h, w) float32 in [0, 1]."""
    if item.texture == 'plain':
        return np.clip(v / np.float32(2 * item.radius) + np.float32(0.5), 0, 1)
    v, u = v / np.float32(item.period), u / np.float32(item.period)
    row, column = np.floor(v), np.floor(u)
    if item.texture == 'stripes':
        return (v - row < 0.5).astype(np.float32)
    if item.texture == 'checks':
        return ((row + column) % 2).astype(np.float32)
    v, u = v - row, u - column
    if item.texture == 'dots':
        half = np.float32(0.5)
        return ((v - half) ** 2 + (u - half) ** 2 < 0.1).astype(np.float32)
    row, column = row.astype(np.int64) % NOISE_GRID, column.astype(np.int64) % NOISE_GRID
    if item.texture == 'grain':
        # Cells much smaller than the other textures' period: four random cells per period.
        return grid[(2 * row + (v >= 0.5)) % NOISE_GRID, (2 * column + (u >= 0.5)) % NOISE_GRID]
    below, right = (row + 1) % NOISE_GRID, (column + 1) % NOISE_GRID
    top = grid[row, column] * (1 - u) + grid[row, right] * u
    bottom = grid[below, column] * (1 - u) + grid[below, right] * u
    return top * (1 - v) + bottom * v


def render(scene):
    """Paint the scene.

    Returns:
        np.ndarray: (H, W, 3) uint8, channels in the order blue, green, red, as mmcv loads images.
    """
    height, width = scene.size
    canvas = np.empty((3, height, width), dtype=np.float32)
    for item in (scene.background, *scene.items):
        window, v, u = _local(item, scene.size)
        first, second = np.array(item.colors, dtype=np.float32)[:, :, None, None]
        color = first + (second - first) * _texture(item, v, u, scene.grid)
        np.copyto(canvas[:, window[0], window[1]], color, where=_inside(item, v, u))
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(height) - np.float32(0.5)
    x = np.arange(width, dtype=np.float32)[None] / np.float32(width) - np.float32(0.5)
    light = 1 + np.float32(scene.light[0]) * y + np.float32(scene.light[1]) * x
    canvas *= np.array(scene.cast, dtype=np.float32)[:, None, None]
    canvas *= light
    canvas += scene.noise
    np.clip(canvas, 0, 255, out=canvas)
    return np.ascontiguousarray(canvas[::-1].astype(np.uint8).transpose(1, 2, 0))


def annotate(scene):
    """Label the scene.

    A pixel is void (255) if exactly one of it and its right or lower neighbor belongs to a shape, or if they
    belong to different shapes. This makes a border one pixel wide, half inside the shape.

    Returns:
        np.ndarray: (H, W) uint8, 0..5 and 255.
    """
    label = np.zeros(scene.size, dtype=np.uint8)
    instance = np.zeros(scene.size, dtype=np.uint8)  # 0 for background and distractors
    for number, item in enumerate(scene.items, 1):
        window, v, u = _local(item, scene.size)
        inside = _inside(item, v, u)
        label[window][inside] = item.label
        instance[window][inside] = number if item.label else 0
    void = np.zeros(scene.size, dtype=bool)
    void[:, :-1] |= instance[:, :-1] != instance[:, 1:]
    void[:-1] |= instance[:-1] != instance[1:]
    label[void] = IGNORE_INDEX
    return label


# ------------------------------------------------------------------------------------ registered


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """A range of a stream of synthetic images, labeled or unlabeled.

    There are six classes: background and five kinds of shapes, which differ in outline, hue and texture.
    Distractors share hues and textures with the shapes. Training, validation and unlabeled sets are different
    ranges (``start``) of the stream of one ``seed``.

    Args:
        num_images (int): Number of images.
        image_size (tuple[int, int]): Height and width in pixels, each at least 16.
        seed (int): Seed of the stream.
        start (int): Index of the first image in the stream.
        labeled (bool): Whether to draw labels. If False, samples have no label keys.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`; the pipeline begins with
            ``dict(type='LoadShapes')``.

    Raises:
        ValueError: If a setting is out of its range.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self, num_images=500, image_size=(64, 64), seed=0, start=0, labeled=True, **kwargs
    ):
        if len(tuple(image_size)) != 2 or min(image_size) < 16:
            raise ValueError(
                f'ShapesDataset: image_size={image_size!r} is not (height, width) with both at '
                'least 16. Give for example image_size=(64, 64).'
            )
        for name, value, least in (
            ('num_images', num_images, 1),
            ('seed', seed, 0),
            ('start', start, 0),
        ):
            if int(value) != value or value < least:
                raise ValueError(
                    f'ShapesDataset: {name}={value!r} is not a whole number of at least {least}. '
                    'Set it to one.'
                )
        if kwargs.get('reduce_zero_label'):
            raise ValueError(
                'ShapesDataset: reduce_zero_label=True would drop the background class, which '
                'these labels contain. Leave it False.'
            )
        self.num_images, self.image_size = int(num_images), tuple(map(int, image_size))
        self.seed, self.start, self.labeled = int(seed), int(start), bool(labeled)
        super().__init__(**kwargs)

    def load_data_list(self):
        """Return one entry per image: the parameters for :class:`LoadShapes`, and a virtual path."""
        label_keys = dict(label_map=self.label_map, reduce_zero_label=False, seg_fields=[])
        return [
            dict(
                img_path=f'shapes/seed{self.seed}/{index:06d}.png',
                shapes=dict(seed=self.seed, index=index, image_size=self.image_size),
                **(label_keys if self.labeled else {}),
            )
            for index in range(self.start, self.start + self.num_images)
        ]


@TRANSFORMS.register_module()
class LoadShapes(BaseTransform):
    """Draw the image, and the labels of a labeled sample, instead of loading them.

    Required keys: ``shapes``; ``seg_fields`` for a labeled sample. If there is a ``seg_map_path``,
    ``LoadAnnotations`` loads the labels.

    Added keys: ``img`` ((H, W, 3) uint8, BGR), ``img_shape``, ``ori_shape``, and for a labeled sample
    ``gt_seg_map`` ((H, W) uint8, 255 = void), whose name is added to ``seg_fields``.

    Args:
        cache (bool): Whether to cache images in memory, per process. A 64x64 image with labels takes 16
            KiB.
    """

    def __init__(self, cache=True):
        self.cache = cache
        self._drawn = {}

    def transform(self, results):
        """Draw the sample; the results are copies of cached arrays."""
        shapes = results['shapes']
        # A pseudo-labeled image has a mask file: its ground truth is not drawn.
        labeled = 'seg_fields' in results and 'seg_map_path' not in results
        key = (shapes['seed'], shapes['index'], tuple(shapes['image_size']), labeled)
        drawn = self._drawn.get(key)
        if drawn is None:
            scene = sample_scene(*key[:3])
            drawn = (render(scene), annotate(scene) if labeled else None)
            if self.cache:
                self._drawn[key] = drawn
        image, label = drawn
        results['img'] = image.copy()
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        if labeled:
            results['gt_seg_map'] = _relabel(label, results.get('label_map'))
            results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self):
        return f'{type(self).__name__}(cache={self.cache})'


def _relabel(label, label_map):
    """Return a copy of ``label`` (H, W), renumbered if the config selects some of the classes."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in (label_map or {}).items():
        table[old] = new
    return table[label]


def write_shapes(root, num_images, *, image_size=(64, 64), seed=0, start=0, labeled=True):
    """Write a range of the stream as image files.

    Args:
        root (str | Path): Target folder, created if missing: ``img_dir/NAME.png`` and, if labeled,
            ``ann_dir/NAME.png`` (palette images, 255 = void).
        num_images, image_size, seed, start, labeled: See :class:`ShapesDataset`.

    Returns:
        list[str]: The names, without suffix.
    """
    root = Path(root)
    for folder in ('img_dir', 'ann_dir') if labeled else ('img_dir',):
        (root / folder).mkdir(parents=True, exist_ok=True)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(PALETTE)] = PALETTE
    names = []
    for index in range(start, start + num_images):
        scene, name = sample_scene(seed, index, image_size), f'{index:06d}'
        Image.fromarray(render(scene)[..., ::-1].copy()).save(root / 'img_dir' / f'{name}.png')
        if labeled:
            mask = Image.fromarray(annotate(scene))
            mask.putpalette(palette.tobytes())
            mask.save(root / 'ann_dir' / f'{name}.png')
        names.append(name)
    return names
