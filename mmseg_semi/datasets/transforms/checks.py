"""File checks for problems that the loaders silently accept, with one-sentence errors.

mmcv converts gray, palette, RGBA and 16-bit files to the expected shape, fills the missing part of a
truncated JPEG with gray, and converts 16-bit labels to 8 bits. ``LabeledUnlabeledDataset`` adds these
checks to the pipelines of its children. Other pipelines can add them explicitly. The checks only read
the header and the last bytes of local files (some 40 µs).
"""

import io
import os

import numpy as np
from mmcv.transforms import BaseTransform, LoadAnnotations, LoadImageFromFile
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..files import open_image
from ..orientation import BROKEN, layout_of, tiff_layout

IGNORE_INDEX = 255
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xae\x42\x60\x82'
_JPEG_END = b'\xff\xd9'
PNG_DEPTH_AT = 24
"""Byte of a PNG file that holds the bits per channel."""
OTHER_CHANNELS = 'docs/your_own_data.md#other-channels'
_KNOWN = ('.jpg', '.jpeg', '.png')  # whatever they hold, Pillow knows it
_MODES = {
    '1': 'black and white',
    'L': 'gray',
    'LA': 'gray with transparency',
    'P': 'a palette image',
    'RGBA': 'RGB with transparency',
    'CMYK': 'CMYK',
}


@TRANSFORMS.register_module()
class CheckImageFile(BaseTransform):
    """Check that ``img_path`` is a complete 8-bit RGB file; place it before the image is loaded.

    Args:
        rgb: Whether the file must be 8-bit RGB. False only checks that it is complete.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated, not an image, or (with ``rgb``) not 8-bit RGB.
    """

    def __init__(self, rgb: bool = True) -> None:
        self.rgb = rgb

    def transform(self, results: dict) -> dict:
        """Check the file and return ``results`` unchanged."""
        path = results['img_path']
        if '://' in path:
            return results
        if self.rgb:
            _check_bands(path)
        try:
            with open(path, 'rb') as file, open_image(file) as image:
                if not _is_complete(file, image.format):
                    raise ValueError(
                        f'{path} is truncated. Copy it again, or take it out of the list.'
                    )
                problem = _not_rgb(image) if self.rgb else None
        except FileNotFoundError:
            raise FileNotFoundError(
                f'{path} does not exist. Restore the image, or take it out of the list.'
            ) from None
        except OSError as error:  # Pillow's UnidentifiedImageError is one
            known = path.lower().endswith(_KNOWN) and layout_of(path) is None
            if not self.rgb and not known:
                return results  # images of many channels; their loader can tell
            raise ValueError(
                f'{path} cannot be read as an image ({_one_line(error)}). Replace it, or take it out '
                'of the list.'
            ) from None
        if problem:
            raise ValueError(
                f'{path} is {problem}, not 8-bit RGB. Convert it to 8-bit RGB, name what it is with the '
                'color_type of LoadImageFromFile (docs/your_own_data.md), or use what mmcv converts it to: '
                "check_files='complete' of LabeledUnlabeledDataset, and in other tools "
                '--cfg-options train_dataloader.dataset.check_files=complete.'
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(rgb={self.rgb})'


def _is_complete(file, kind: str | None) -> bool:
    """Whether an open JPEG or PNG file has its end marker; True for other formats."""
    if kind not in ('JPEG', 'MPO', 'PNG'):
        return True
    end = _PNG_END if kind == 'PNG' else _JPEG_END
    file.seek(-min(64, file.seek(0, os.SEEK_END)), os.SEEK_END)
    tail = file.read()
    if tail.rstrip(b'\0').endswith(end):
        return True
    # Cameras append data after the end marker, and an embedded thumbnail has its own marker, so the marker's
    # position proves nothing: these few files are decoded in full.
    file.seek(0)
    content = file.read()
    if kind == 'PNG':
        return _PNG_END in content
    try:
        with open_image(io.BytesIO(content)) as image:
            image.load()
    except OSError:
        return False
    return True


def _check_bands(path: str) -> None:
    """Raise ValueError if a file has more bits or bands than 8-bit RGB, which a loader would drop."""
    # Pillow calls 16-bit RGB files 'RGB' as well, and does not know most files of many bands.
    try:
        with open(path, 'rb') as file:
            layout, remedy = (
                tiff_layout(file),
                "color_type='unchanged', imdecode_backend='tifffile'",
            )
            if layout is not None:
                bands, bits = layout.bands - layout.alphas, layout.bits
            else:
                file.seek(0)
                head, remedy = file.read(PNG_DEPTH_AT + 1), "color_type='unchanged'"
                bits = (
                    head[PNG_DEPTH_AT] if head.startswith(_PNG) and len(head) > PNG_DEPTH_AT else 8
                )
    except (OSError, *BROKEN):
        return  # the loader raises the error
    many = layout is not None and bands > 1 and (layout.gray or (bands > 3 and not layout.cmyk))
    if bits <= 8 and not many:
        return
    raise ValueError(
        f'{path} is {bits}-bit{f" with {bands} bands" if layout else ""}, not 8-bit RGB. Load all of it by '
        f'LoadImageFromFile with {remedy} and set one mean and std per band ({OTHER_CHANNELS}), or convert the '
        'files to 8-bit RGB.'
    )


def _not_rgb(image: Image.Image) -> str | None:
    """Return a description of an open file, or None if it is 8-bit RGB."""
    if image.mode.startswith(('I', 'F')):
        return f'of more than 8 bits (mode {image.mode})'
    if image.mode != 'RGB':
        return f'{_MODES.get(image.mode, "another kind of image")} (mode {image.mode})'
    return None


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Check a freshly loaded label map against its file, the image and the classes.

    Place it right after the annotations are loaded. Needs ``img`` (H, W, C), ``ori_shape`` (H, W) if the image
    is already resized, and ``gt_seg_map``, which must be (H, W) with values below ``num_classes`` or
    ``ignore_index``.

    Args:
        num_classes: Number of classes of the dataset; None disables the check of values.
        ignore_index: The value of void.

    Raises:
        ValueError: The mask is a color or 16-bit image, mask and image have different sizes, or a value is out
            of range.
    """

    def __init__(self, num_classes: int | None = None, ignore_index: int = IGNORE_INDEX) -> None:
        if num_classes is not None and not 0 < num_classes <= IGNORE_INDEX:
            raise ValueError(
                f'CheckLabels num_classes={num_classes!r} must be between 1 and {IGNORE_INDEX}.'
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Check the labels and return ``results`` unchanged."""
        label, image = results.get('gt_seg_map'), results['img']
        if label is None:
            raise ValueError(
                f'{results.get("img_path")} has no label map. Load annotations in the labeled '
                "pipeline, such as with dict(type='LoadAnnotations')."
            )
        path = results.get('seg_map_path') or f'the label map of {results.get("img_path")}'
        if label.ndim != 2 or _is_deep(results.get('seg_map_path')):
            kind = '16-bit' if label.ndim == 2 else 'a color image'
            raise ValueError(
                f'{path} is {kind}, but a mask must be an 8-bit image with one channel (or a palette) '
                f'whose values are class indices or {self.ignore_index}. Convert the masks, such as with '
                'tools/dataset_converters/folders.py (--colors for color masks).'
            )
        # Pipelines for evaluation load the mask after the image is resized.
        size = tuple(results.get('ori_shape', image.shape)[:2])
        if label.shape != size:
            raise ValueError(
                f'{path} is {label.shape[0]}x{label.shape[1]} (height x width) but its image '
                f'{results.get("img_path")} is {size[0]}x{size[1]}. Give every image a mask of the same size.'
            )
        void = self.ignore_index
        if self.num_classes is not None and not _in_range(label, self.num_classes, void):
            wrong = ((label < 0) | (label >= self.num_classes)) & (label != void)
            value = label[wrong].max()
            raise ValueError(
                f'{path} has the value {value}, but the dataset has {self.num_classes} classes '
                f'(0 to {self.num_classes - 1}, {void} = void). {_remedy(results, value, void)}.'
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index})'


def _remedy(results: dict, value: int, void: int) -> str:
    if value == IGNORE_INDEX and IGNORE_INDEX in (results.get('label_map') or {}).values():
        return (
            f'MMSegmentation marks the classes that metainfo leaves out by {value}. Write {value} instead of '
            f'{void} into the masks and remove ignore_index={void}, or list all classes in metainfo'
        )
    correct = 'Correct the mask or the classes of metainfo'
    if results.get('reduce_zero_label'):
        return f'{correct}; with reduce_zero_label=True these are the values of the file less 1'
    return f'{correct}, or set reduce_zero_label=True if the labels count from 1'


def _in_range(label: np.ndarray, num_classes: int, void: int) -> bool:
    if label.dtype == np.uint8 and void == IGNORE_INDEX:
        # One pass: 255 + 1 wraps to 0, so void passes for class 0.
        return int((label + np.uint8(1)).max()) <= num_classes
    return bool(((label >= 0) & (label < num_classes) | (label == void)).all())


def _is_deep(path: str | None) -> bool:
    """Whether a local mask file has more than 8 bits, which the loader would drop."""
    if path is None or '://' in path:
        return False
    try:
        with open_image(path) as image:
            return image.mode.startswith(('I', 'F'))
    except OSError:  # not Pillow's kind of file; the loader could read it
        return False


def with_file_checks(
    transforms: list,
    num_classes: int | None,
    labeled: bool,
    modes: bool = True,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[list, str]:
    """Insert the checks into a list of built transforms.

    ``CheckImageFile`` goes before mmcv's image loader, and ``CheckLabels`` (only with ``labeled``) after the
    last transform whose class name starts with ``Load``. A loader with settings for other images than RGB
    (``color_type``, ``imdecode_backend='tifffile'``) is allowed to read them. Loaders with a file backend are
    not checked, since this would transfer every file twice. ``modes=False`` allows gray images, 16-bit images
    and so on. ``ignore_index`` is the value of void in labels.

    Returns:
        A new list, and a description of what is not checked ('' if everything is).
    """
    checked = list(transforms)
    unchecked = []
    loaders = [i for i, t in enumerate(checked) if type(t).__name__.startswith('Load')]
    if labeled and loaders:
        checked.insert(loaders[-1] + 1, CheckLabels(num_classes, ignore_index))
        if num_classes is None:
            unchecked.append('label values (the dataset has no class names)')
    elif labeled:
        unchecked.append('labels (no transform is named Load...)')
    for i, transform in enumerate(checked):
        if not isinstance(transform, LoadImageFromFile) or isinstance(
            transform, LoadImageFromNDArray
        ):
            continue
        if not reads_local_files(transform):
            unchecked.append('image files (they come through a file backend)')
            break
        rgb = transform.color_type.startswith('color') and transform.imdecode_backend != 'tifffile'
        if not rgb:
            unchecked.append('color modes (the loader asks for others than RGB)')
        checked.insert(i, CheckImageFile(rgb and modes))
        break
    return checked, ' and '.join(unchecked)


def reads_local_files(loader: LoadImageFromFile | LoadAnnotations) -> bool:
    """Whether an mmcv loader has no file backend configured but the local one."""
    arguments = loader.backend_args or loader.file_client_args or {}
    return arguments.get('backend', 'local') in ('local', 'disk')


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split()).rstrip('.')
