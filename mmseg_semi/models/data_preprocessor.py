"""From a collated batch of branches to normalized float batches on the device."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_semi.compat import swaps_channels

_LABEL_MAPS = ('gt_sem_seg', 'gt_edge_map', 'gt_depth_map')


@MODELS.register_module()
class MultiBranchDataPreprocessor(SegDataPreProcessor):
    """mmseg's ``SegDataPreProcessor`` for every branch of a labeled/unlabeled batch.

    Images travel to the device as uint8, one stacked copy per branch, and become float there. All
    branches come out at one size, so that they can pass the network together: ``size`` if it is
    set, else the largest image rounded up to ``size_divisor``, padded at the bottom and at the right
    with ``pad_val`` after the normalization (0 is the mean color), label maps with
    ``seg_pad_val``, valid masks with False. A batch without branches (validation, test, supervised
    training) goes to the base class unchanged.

    Where a strong view changes colors, pad in the pipeline before ``MultiBranch``: in the papers' codes the
    operations see the padding, on which autocontrast and equalize depend.

    Args:
        size: (height, width) that all images are padded to. None: see ``size_divisor``.
        size_divisor: pad the largest image of the batch to a multiple of this, the others to the same.
            None with ``size=None``: all images must have one size already.
        non_blocking: whether copies to the device run beside the host (they do only from pinned
            memory: set ``pin_memory=True`` in the loader).
        **kwargs: as for ``SegDataPreProcessor``: ``mean``, ``std``, ``pad_val``, ``seg_pad_val``,
            ``bgr_to_rgb``, ``rgb_to_bgr``, ``test_cfg``. ``mean`` and ``std`` may have any number of
            channels; where it is not three, channels stay in their order.

    Raises:
        ValueError: at once for settings that exclude each other; in a call for an image that is
            larger than ``size`` or has other channels than ``mean``, or images of different sizes that
            nothing pads.
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
                'data_preprocessor.batch_augments is not applied to branches. Remove it, and mix in the method '
                '(such as with AdaptiveCutMix).'
            )
        mean, std = kwargs.pop('mean', None), kwargs.pop('std', None)
        super().__init__(size=size, size_divisor=size_divisor, **kwargs)
        self._non_blocking = non_blocking
        self._normalize_by(mean, std)

    def _normalize_by(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Mean and std of any number of channels; one of the two mmsegs takes 1 or 3 only."""
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
                [SegDataSample]}}``, or a batch of the base class. It is not changed. Images of 16 bits or
                floating point stay in the units of their files.
            training: for the base class.

        Returns:
            The same two dicts: float32 (n, C, H, W), and samples whose maps have that H and W.
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
        """Raise ValueError where mean and std would be spread over other channels than their own."""
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
                        'channels, '
                        'and the backbone as many in_channels.'
                    )

    def _common_size(self, data: dict) -> tuple[int, int]:
        """Height and width of all branches after padding; ValueError when they cannot agree."""
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
                        'pipeline and others of the batch are larger, as when a crop is larger than '
                        'the image. Set data_preprocessor.size to the crop, or add Pad to the pipeline.'
                    )
        crops = {branch: images[0] for branch, images in sizes.items()}
        if len(set(crops.values())) > 1:
            said = ', '.join(f'{branch} {h}x{w}' for branch, (h, w) in crops.items())
            raise ValueError(
                f'The branches have different sizes ({said}, height x width). Give the labeled and the '
                'unlabeled pipeline the same crop, or set data_preprocessor.size.'
            )

    def _batch(self, images: Tensor | list[Tensor], height: int, width: int) -> Tensor:
        """Normalized (n, C, height, width) of uint8 images on the device."""
        if not isinstance(images, Tensor):
            if len(set(_sizes(images))) > 1:
                return torch.cat([self._batch(image[None], height, width) for image in images])
            images = torch.stack(images)
        if swaps_channels(self) and images.size(1) == 3:
            images = images.flip(1)
        # Not multiplied by the reciprocal: the results are those of SegDataPreProcessor to the last bit.
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
        """Pad the maps of a sample and note the sizes; ``cast_data`` has made the sample our own."""
        padding = (0, width - size[1], 0, height - size[0])
        if any(padding):
            for name in (*_LABEL_MAPS, 'valid_mask'):
                if name in sample:
                    fill = False if name == 'valid_mask' else self.seg_pad_val
                    pixels = sample.get(name)
                    padded = F.pad(pixels.data, padding, value=fill)
                    del pixels.data  # PixelData refuses a second size beside the first
                    pixels.data = padded
        sample.set_metainfo(dict(img_shape=size, pad_shape=(height, width), padding_size=padding))
        return sample


def _known_to_torch(images):
    """Images, lists or branches of them, with integers of other than 8 bits as float32.

    torch has few operations on uint16, and not the same ones in its versions and on all devices.
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
