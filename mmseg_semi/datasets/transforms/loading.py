"""The two loaders of MMSegmentation's pipelines, extended to EXIF orientations and many bands.

They replace MMSegmentation's loaders under the same names in every pipeline: of labeled, unlabeled, validation
and test sets, of tools, and of ``mmseg.apis``.
"""

from __future__ import annotations

import importlib.util
import io

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile as FileLoader
from mmseg.datasets.transforms import LoadAnnotations as MaskLoader
from mmseg.registry import TRANSFORMS

from ...functional._torch import knows_uint16
from ..orientation import (
    BROKEN,
    Pair,
    check_drawn_on,
    displayed,
    mask_orientation,
    orientation_of,
    tiff_layout,
)
from .checks import OTHER_CHANNELS, PNG_DEPTH_AT, reads_local_files

_PNG = b'\x89PNG\r\n\x1a\n'


@TRANSFORMS.register_module()
class LoadImageFromFile(FileLoader):
    """mmcv's loader, which applies the EXIF orientation and does not silently drop bands or bits.

    The image is rotated by its EXIF orientation with every ``imdecode_backend``, also with
    ``color_type='unchanged'``. Only color types that end in ``ignore_orientation`` keep the stored orientation
    (but OpenCV and Pillow always rotate TIFF files). With ``imdecode_backend='tifffile'`` all bands of a TIFF
    file are loaded.

    Sets ``img``, (H, W) or (H, W, C) with the dtype of the file (float32 for 16 bits with torch < 2.3, which
    has no uint16), ``img_shape`` and ``ori_shape``. For an image with an EXIF orientation it also sets
    ``exif_orientation`` (2 to 8) and ``is_displayed``, which ``LoadAnnotations`` uses to rotate the mask.

    Args:
        *args: Arguments of mmcv's ``LoadImageFromFile``.
        **kwargs: Keyword arguments of mmcv's ``LoadImageFromFile``.

    Raises:
        ImportError: ``imdecode_backend='tifffile'``, but tifffile is not installed.
        ValueError: In a call: the file cannot be read, or has more bands or bits than are loaded.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.imdecode_backend == 'tifffile' and importlib.util.find_spec('tifffile') is None:
            raise ImportError(
                "LoadImageFromFile has imdecode_backend='tifffile', but tifffile is not installed. Run "
                '`pip install tifffile imagecodecs`.'
            )

    @property
    def displays(self) -> bool:
        """Whether images are loaded as viewers display them instead of as stored."""
        return not self.color_type.endswith('ignore_orientation')

    def transform(self, results: dict) -> dict | None:
        """Load ``img_path``; None if it cannot be loaded and ``ignore_empty`` is set."""
        path = results['img_path']
        try:
            content = self._content(path)
            image, orientation, is_displayed = self._decode(content, path)
        except Exception:  # as in mmcv: any error
            if self.ignore_empty:
                return None
            raise
        wide = image.dtype.kind == 'u' and image.dtype.itemsize > 1
        if self.to_float32 or (wide and not knows_uint16):
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        if orientation != 1:
            results['exif_orientation'], results['is_displayed'] = orientation, is_displayed
        return results

    def _content(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        return fileio.get(path, backend_args=self.backend_args)

    def _decode(self, content: bytes, path: str) -> tuple[np.ndarray, int, bool]:
        """Return the image, its orientation, and whether it was rotated by it."""
        orientation = orientation_of(content)
        layout = tiff_layout(io.BytesIO(content))
        if self.imdecode_backend == 'tifffile':
            image = _read_tiff(content, path)
        else:
            found = None
            try:
                found = mmcv.imfrombytes(content, flag=self._flag(), backend=self.imdecode_backend)
            except BROKEN as error:  # from Pillow; OpenCV returns None
                if layout is None:
                    raise ValueError(_unreadable(path, error)) from None
            image = self._whole(found, content, layout, path)
            if layout is not None:  # OpenCV and Pillow have rotated it
                return image, orientation, True
        if self.displays and orientation != 1:
            image = displayed(image, orientation)
        return image, orientation, self.displays

    def _flag(self) -> str:
        """Return the color type that keeps the stored orientation, so that one rule rotates all images."""
        backend = self.imdecode_backend or mmcv.image.io.imread_backend
        if backend in ('cv2', 'pillow') and self.color_type in ('color', 'grayscale'):
            return f'{self.color_type}_ignore_orientation'
        return self.color_type

    def _whole(self, image: np.ndarray | None, content: bytes, layout, path: str) -> np.ndarray:
        """Return the decoded image; ValueError if the file contains more bands or bits than were decoded."""
        channels = 0 if image is None else 1 if image.ndim == 2 else image.shape[2]
        if layout is not None:
            bands, bits = layout.bands, layout.bits
            wanted = bands
            if (
                self.color_type != 'unchanged'
            ):  # the config asks for one or three channels, without transparency
                wanted -= layout.alphas
            lost = (
                channels < (1 if self.color_type.startswith('gray') and wanted == 3 else wanted)
                # RGB decoded from a gray file is its first band, three times.
                or (layout.gray and wanted > 1 and self.color_type != 'unchanged')
                # OpenCV mixes up the rows of such bands.
                or (layout.planar and bands > 1 and bits > 8)
            )
            remedy = "color_type='unchanged', imdecode_backend='tifffile'"
        else:
            bands, lost = channels, False
            bits = content[PNG_DEPTH_AT] if content.startswith(_PNG) else 8
            remedy = "color_type='unchanged'"
        if image is not None and not lost and (bits <= 8 or image.dtype != np.uint8):
            return image
        if image is None and layout is None:
            raise ValueError(_unreadable(path))
        given = 'nothing' if image is None else f'{channels} of {image.dtype}'
        raise ValueError(
            f'{path} has {bands} band(s) of {bits} bits and the loader gives {given}. Load all of it by '
            f'LoadImageFromFile with {remedy} and set one mean and std per band ({OTHER_CHANNELS}), or convert '
            'the files to 8-bit RGB.'
        )


def _unreadable(path: str, error: Exception | None = None) -> str:
    said = ' '.join(str(error or '').split()).rstrip('.')
    reason = f' ({said})' if said else ''
    return f'{path} cannot be read as an image{reason}. Replace it, or take it out of the list.'


def _read_tiff(content: bytes, path: str) -> np.ndarray:
    """Return the first image of a TIFF file, bands last; ValueError if it cannot be read."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            image, axes = series.asarray(), series.axes
    except (tifffile.TiffFileError, ValueError, IndexError) as error:
        said = ' '.join(str(error).split()).rstrip('.')
        raise ValueError(
            f'{path} cannot be read by tifffile ({said}). Replace it, or load it without '
            "imdecode_backend='tifffile'."
        ) from None
    whole = tuple(
        i
        for i, (n, axis) in enumerate(zip(image.shape, axes, strict=True))
        if axis in 'YX' or n > 1
    )
    image, axes = image.reshape([image.shape[i] for i in whole]), ''.join(axes[i] for i in whole)
    bands = axes.replace('Y', '').replace('X', '')
    if len(bands) > 1 or not {'Y', 'X'} <= set(axes):
        raise ValueError(
            f'{path} has the axes {axes} of {"x".join(map(str, image.shape))}. Save one image per file, with '
            'height, width and bands.'
        )
    return np.ascontiguousarray(image.transpose([axes.index(axis) for axis in f'YX{bands}']))


@TRANSFORMS.register_module(force=True)
class LoadAnnotations(MaskLoader):
    """mmseg's loader, for masks in the orientation of their image.

    The mask of an image with an EXIF orientation may be drawn on the stored pixels, as in scripts and some
    annotation tools, or on the displayed image. If the orientation swaps height and width, the size of the mask
    decides. Otherwise ``drawn_on`` decides. In both cases the mask is rotated like its image. A mask with its
    own EXIF orientation was drawn on its displayed view.

    Args:
        reduce_zero_label, backend_args, imdecode_backend: Same as in mmseg's ``LoadAnnotations``.
        drawn_on: 'stored' or 'displayed'; None only uses the sizes.

    Raises:
        ValueError: A setting is out of range. In a call: the mask matches neither view of its image, both views
            if ``drawn_on`` is None, or not the view of ``drawn_on``.
    """

    def __init__(
        self,
        reduce_zero_label: bool | None = None,
        backend_args: dict | None = None,
        imdecode_backend: str = 'pillow',
        drawn_on: str | None = None,
    ) -> None:
        super().__init__(
            reduce_zero_label=reduce_zero_label,
            backend_args=backend_args,
            imdecode_backend=imdecode_backend,
        )
        check_drawn_on(drawn_on)
        self.drawn_on = drawn_on

    def _load_seg_map(self, results: dict) -> None:
        super()._load_seg_map(results)
        results['gt_seg_map'] = self.turned(results, results['gt_seg_map'])

    def turned(self, results: dict, mask: np.ndarray) -> np.ndarray:
        """Rotate a map (H, W, ...) on the pixels of the mask's file as the image is loaded."""
        own = self._own_orientation(results)
        orientation = results.get('exif_orientation', 1)
        if (own, orientation) == (1, 1):
            return mask
        pair = Pair(
            image=results.get('img_path'),
            mask=results['seg_map_path'],
            image_size=tuple(results['ori_shape'][:2]),
            mask_size=mask.shape[:2],
            orientation=orientation,
            is_displayed=results.get('is_displayed', True),
            mask_orientation=own,
        )
        # A pseudo-labeled dataset sets the view of its masks.
        return pair.match(mask, results.get('drawn_on', self.drawn_on))

    def _own_orientation(self, results: dict) -> int:
        """Return the mask's own EXIF orientation; 1 if it has none or its decoder has applied it."""
        path = results['seg_map_path']
        if '://' not in path and reads_local_files(self):
            return mask_orientation(path)
        if 'exif_orientation' not in results:
            return 1  # transferring every mask a second time would cost too much
        return mask_orientation(fileio.get(path, backend_args=self.backend_args))
