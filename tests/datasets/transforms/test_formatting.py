"""The valid mask follows every geometric transform, and what they fill in is not valid."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

MARK = 77  # no padding value


def pack(*transforms, height=6, width=8):
    """Valid mask and image of a constant image after ``transforms``."""
    image = np.full((height, width, 3), MARK, dtype=np.uint8)
    results = dict(img=image, img_path='a.jpg', img_shape=image.shape[:2])
    packed = Compose([dict(type='AddValidMask'), *transforms, dict(type='PackUnlabeledInputs')])(
        results
    )
    sample = packed['data_samples']
    assert 'gt_sem_seg' not in sample
    mask = sample.valid_mask.data
    assert mask.dtype == torch.bool
    assert mask.shape == (1, *packed['inputs'].shape[1:])
    return mask[0], packed['inputs']


def test_untouched_image_is_all_valid():
    mask, image = pack()
    assert mask.all()
    assert image.dtype == torch.uint8


def test_geometry_that_fills_nothing_keeps_all_valid():
    mask, _ = pack(
        dict(type='Resize', scale=(20, 15), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(9, 9)),
        dict(type='RandomFlip', prob=1.0),
    )
    assert mask.shape == (9, 9)
    assert mask.all()


@pytest.mark.parametrize(
    'transforms',
    [
        [dict(type='Pad', size=(9, 12))],
        [dict(type='Pad', size=(9, 12)), dict(type='RandomFlip', prob=1.0)],
        [dict(type='Pad', size=(9, 12)), dict(type='RandomCrop', crop_size=(8, 8))],
        [dict(type='Pad', size=(9, 12)), dict(type='Resize', scale=(24, 18), interpolation='nearest')],
        [dict(type='Pad', size=(9, 12)), dict(type='CenterCrop', crop_size=(8, 8))],
        [dict(type='RandomRotFlip', rotate_prob=0, flip_prob=1.0)],
        [dict(type='RandomCutOut', prob=1.0, n_holes=1, cutout_shape=(3, 3), seg_fill_in=255)],
    ],
)  # fmt: skip
def test_valid_is_where_the_image_is(transforms):
    mask, image = pack(*transforms)
    assert torch.equal(mask, (image == MARK).all(dim=0))


@pytest.mark.parametrize(
    'rotation',
    [
        dict(type='RandomRotate', prob=1.0, degree=(30, 30.001)),
        # It fills masks with 0, and interpolates them.
        dict(type='RandomRotFlip', rotate_prob=1.0, degree=(30, 30.001)),
    ],
)
def test_rotation_fills_invalid_corners(rotation):
    mask, image = pack(rotation, height=40, width=40)
    assert not mask[0, 0]
    assert not mask[-1, -1]
    assert mask[20, 20]
    # The image is interpolated at the border, so compare where it is all real or all filled.
    assert mask[(image == MARK).all(dim=0)].float().mean() > 0.99
    assert not mask[(image == 0).all(dim=0)].any()


@pytest.mark.parametrize('view', ['whole', 'cropped', 'flipped', 'float', 'gray'])
def test_image_is_packed_as_mmseg_packs_it(view):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = dict(
        whole=image,
        cropped=image[1:5, 2:7],
        flipped=image[:, ::-1],
        float=image.astype(np.float32),
        gray=image[..., :1],
    )[view]
    results = dict(img=image, img_path='a.jpg')
    stock = Compose([dict(type='PackSegInputs')])(results)['inputs']
    ours = Compose([dict(type='AddValidMask'), dict(type='PackUnlabeledInputs')])(results)['inputs']
    assert torch.equal(ours, stock)
    assert ours.dtype == stock.dtype
    assert ours.is_contiguous()


def test_meta_information():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    packed = Compose([dict(type='AddValidMask'), dict(type='PackUnlabeledInputs')])(
        dict(img=image, img_path='a.jpg', ori_shape=(4, 6), seg_map_path='no.png')
    )
    assert packed['data_samples'].metainfo == dict(img_path='a.jpg', ori_shape=(4, 6))


def test_labeled_results_are_refused():
    results = dict(img=np.zeros((4, 6, 3)), img_path='a.jpg', gt_seg_map=np.zeros((4, 6)))
    with pytest.raises(ValueError, match=r'a\.jpg has a label map before AddValidMask'):
        Compose([dict(type='AddValidMask')])(results)


def test_missing_mask():
    results = dict(img=np.zeros((4, 6, 3), np.uint8), img_path='a.jpg')
    with pytest.raises(
        ValueError, match=r"a\.jpg has no valid mask. Add dict\(type='AddValidMask'\)"
    ):
        Compose([dict(type='PackUnlabeledInputs')])(results)


def test_transform_that_moves_images_only():
    def halve(results):
        return {**results, 'img': results['img'][::2]}

    with pytest.raises(ValueError, match=r'a\.jpg is 3x8 but its valid mask is 6x8'):
        pack(halve)
