"""Preprocessing of a collated batch: copy it to the device, normalize and pad."""

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_semi.compat import swaps_channels

_LABEL_MAPS = ('gt_sem_seg', 'gt_edge_map', 'gt_depth_map')


#: Settings of the colors, in which the preprocessors of a method and of its network agree.
COLORS = ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr')


def check_preprocessor(built: nn.Module, used: dict, inner: dict) -> None:
    """Reject MMSegmentation's own preprocessor, and log settings of the network that have no effect.

    Args:
        built (nn.Module): The preprocessor of the method.
        used (dict): Its config.
        inner (dict): ``segmentor.data_preprocessor``.

    Raises:
        ValueError: The preprocessor does not support branches.
    """
    if type(built) is SegDataPreProcessor:
        raise ValueError(
            'data_preprocessor.type=SegDataPreProcessor does not support labeled and unlabeled images in one '
            "batch. Set model.data_preprocessor.type='MultiBranchDataPreprocessor'. (If the model has no "
            'data_preprocessor, MMEngine inserts the one of the top level.)'
        )
    for key in COLORS:
        if key in inner and key in used and inner[key] != used[key]:
            print_log(
                f'model.segmentor.data_preprocessor.{key}={inner[key]} has no effect, since '
                f'model.data_preprocessor.{key}={used[key]} applies to all networks. Change the latter.',
                logger='current',
                level=logging.WARNING,
            )


@MODELS.register_module()
class MultiBranchDataPreprocessor(SegDataPreProcessor):
    """MMSegmentation's ``SegDataPreProcessor`` for every branch of a labeled/unlabeled batch.

    Images are copied to the device as uint8, one stacked copy per branch, and converted to float there. All
    branches get the same size, so that one forward pass can process them together: ``size`` if it is set, else
    the size of the largest image rounded up to ``size_divisor``. Padding is added at the bottom and at the
    right after the normalization: ``pad_val`` in images (0 is the mean color), ``seg_pad_val`` in label maps,
    False in valid masks. The base class handles batches without branches (validation, test, supervised
    training).

    If a strong view changes colors, pad in the pipeline before ``MultiBranch``, as in the papers' code. The
    results of autocontrast and equalize depend on the padding.

    Args:
        size: (height, width) of all images after padding. None: see ``size_divisor``.
        size_divisor: Pad all images to the size of the largest one, rounded up to a multiple of this. If both
            this and ``size`` are None, all images must have the same size.
        non_blocking: Whether copies to the device are asynchronous. This needs pinned memory: set
            ``pin_memory=True`` in the loader.
        **kwargs: Arguments of ``SegDataPreProcessor``: ``mean``, ``std``, ``pad_val``, ``seg_pad_val``,
            ``bgr_to_rgb``, ``rgb_to_bgr``, ``test_cfg``. ``mean`` and ``std`` may have any number of channels.
            The order of channels only changes if there are three.

    Raises:
        ValueError: Settings contradict each other. In a call: an image is larger than ``size`` or has a
            different number of channels than ``mean``, or images have different sizes and are not padded.
    """

    def __init__(
        self,
        *,
        size: Sequence[int] | None = None,
        size_divisor: int | None = None,
        non_blocking: bool = True,
        **kwargs,
    ) -> None:
        if size is not None and (not isinstance(size, Sequence) or len(size) != 2):
            raise ValueError(f'data_preprocessor.size={size!r} must be (height, width).')
        if size is not None and size_divisor is not None:
            raise ValueError(
                f'data_preprocessor has size={size!r} and size_divisor={size_divisor!r}. Set one of them.'
            )
        if kwargs.get('batch_augments') is not None:
            raise ValueError(
                'data_preprocessor.batch_augments is not applied to branches. Remove it, and use the setting '
                'cutmix of the method instead.'
            )
        mean, std = kwargs.pop('mean', None), kwargs.pop('std', None)
        super().__init__(size=size, size_divisor=size_divisor, **kwargs)
        self._non_blocking = non_blocking
        self._normalize_by(mean, std)

    def _normalize_by(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Register mean and std for any number of channels. One version of mmseg only accepts 1 or 3."""
        if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std)):
            raise ValueError(
                f'data_preprocessor.mean={mean!r} and std={std!r} must have one value per channel each. '
                'Set both, or neither.'
            )
        self._enable_normalize = mean is not None
        if mean is not None:
            for name, values in (('mean', mean), ('std', std)):
                self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move, normalize, pad and stack a batch.

        Args:
            data: ``{'inputs': {branch: uint8 (n, C, H, W) or list of (C, H, W)}, 'data_samples': {branch:
                [SegDataSample]}}``, or a batch of the base class. It is not changed. 16-bit and floating-point
                images keep the units of their files.
            training: Passed to the base class.

        Returns:
            The same two dicts, with float32 images (n, C, H, W) and samples with maps of that H and W.
        """
        self._check_channels(data)
        data = {**data, 'inputs': _known_to_torch(data['inputs'])}
        if not isinstance(data['inputs'], Mapping):
            return super().forward(data, training)
        height, width = self._common_size(data)
        data = self.cast_data(data)
        inputs, data_samples = {}, {}
        for branch, images in data['inputs'].items():
            inputs[branch] = self._batch(images, height, width)
            data_samples[branch] = [
                self._pad_maps(sample, tuple(image.shape[-2:]), height, width)
                for sample, image in zip(data['data_samples'][branch], images, strict=True)
            ]
        return dict(inputs=inputs, data_samples=data_samples)

    def _check_channels(self, data: dict) -> None:
        """Raise ValueError if the number of channels differs from that of mean and std."""
        if not self._enable_normalize or len(self.mean) == 1:
            return
        inputs = data['inputs']
        branches = inputs.items() if isinstance(inputs, Mapping) else [('', inputs)]
        for branch, images in branches:
            stacked = isinstance(images, Tensor)
            for i, image in enumerate(images[:1] if stacked else images):
                if image.shape[-3] != len(self.mean):
                    path = _path(data, branch, i)
                    raise ValueError(
                        f'{path} has {image.shape[-3]} channel(s) as loaded, but data_preprocessor.mean and '
                        f'std have {len(self.mean)} values. Give one per channel, in the order of the '
                        'channels, and set in_channels of the backbone to their number.'
                    )

    def _common_size(self, data: dict) -> tuple[int, int]:
        """Return height and width of all branches after padding. ValueError if their sizes contradict."""
        sizes = {branch: _sizes(images) for branch, images in data['inputs'].items()}
        height = max(h for branch in sizes.values() for h, _ in branch)
        width = max(w for branch in sizes.values() for _, w in branch)
        if self.size is not None:
            for branch, images in sizes.items():
                for i, (h, w) in enumerate(images):
                    if h > self.size[0] or w > self.size[1]:
                        raise ValueError(
                            f'{_path(data, branch, i)} is {h}x{w} (height x width) after the {branch} '
                            f'pipeline, larger than data_preprocessor.size={tuple(self.size)}. Set size '
                            'to the crop of the pipelines, or crop to size.'
                        )
            return tuple(self.size)
        if self.size_divisor is not None:
            return tuple(-(-n // self.size_divisor) * self.size_divisor for n in (height, width))
        self._check_equal(data, sizes, (height, width))
        return height, width

    def _check_equal(self, data: dict, sizes: dict, largest: tuple[int, int]) -> None:
        for branch, images in sizes.items():
            for i, (h, w) in enumerate(images):
                if len(set(images)) > 1 and (h, w) != largest:
                    raise ValueError(
                        f'{_path(data, branch, i)} is {h}x{w} (height x width) after the {branch} '
                        'pipeline, but others of the batch are larger. This happens if the crop is larger than '
                        'an image. Set data_preprocessor.size to the crop, or add Pad to the pipeline.'
                    )
        crops = {branch: images[0] for branch, images in sizes.items()}
        if len(set(crops.values())) > 1:
            said = ', '.join(f'{branch} {h}x{w}' for branch, (h, w) in crops.items())
            raise ValueError(
                f'The branches have different sizes ({said}, height x width). Give the labeled and the '
                'unlabeled pipeline the same crop, or set data_preprocessor.size.'
            )

    def _batch(self, images: Tensor | list[Tensor], height: int, width: int) -> Tensor:
        """Return normalized images (n, C, height, width) from uint8 images on the device."""
        if not isinstance(images, Tensor):
            if len(set(_sizes(images))) > 1:
                return torch.cat([self._batch(image[None], height, width) for image in images])
            images = torch.stack(images)
        if swaps_channels(self) and images.size(1) == 3:
            images = images.flip(1)
        # Divide instead of multiplying by the reciprocal, for bitwise the same results as SegDataPreProcessor.
        images = (
            (images.float() - self.mean).div_(self.std)
            if self._enable_normalize
            else images.float()
        )
        right, bottom = width - images.size(3), height - images.size(2)
        return (
            F.pad(images, (0, right, 0, bottom), value=self.pad_val) if right or bottom else images
        )

    def _pad_maps(
        self, sample: SegDataSample, size: tuple[int, int], height: int, width: int
    ) -> SegDataSample:
        """Pad the maps of a sample in place and store the sizes. ``cast_data`` has copied the sample."""
        padding = (0, width - size[1], 0, height - size[0])
        if any(padding):
            for name in (*_LABEL_MAPS, 'valid_mask'):
                if name in sample:
                    fill = False if name == 'valid_mask' else self.seg_pad_val
                    pixels = sample.get(name)
                    padded = F.pad(pixels.data, padding, value=fill)
                    del pixels.data  # PixelData does not accept a different size
                    pixels.data = padded
        sample.set_metainfo(dict(img_shape=size, pad_shape=(height, width), padding_size=padding))
        return sample


def _known_to_torch(images):
    """Convert integer images of more than 8 bits to float32, in tensors, lists or branches.

    torch supports few operations on uint16, and these depend on its version and the device.
    """
    if isinstance(images, Mapping):
        return {branch: _known_to_torch(of) for branch, of in images.items()}
    if not isinstance(images, Tensor):
        return [_known_to_torch(image) for image in images]
    return images if images.dtype == torch.uint8 else images.float()


def _sizes(images: Tensor | list[Tensor]) -> list[tuple[int, int]]:
    if isinstance(images, Tensor):
        return [tuple(images.shape[-2:])] * len(images)
    return [tuple(image.shape[-2:]) for image in images]


def _path(data: dict, branch: str, index: int) -> str:
    samples = data.get('data_samples') or []
    if isinstance(samples, Mapping):
        samples = samples[branch]
    path = samples[index].metainfo.get('img_path') if index < len(samples) else None
    return path or f'image {index} of {branch or "the batch"}'
