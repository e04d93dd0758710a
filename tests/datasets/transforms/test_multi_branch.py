"""MultiBranch: one geometry, independent views."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmseg.registry import TRANSFORMS

from mmseg_semi.datasets import MultiBranch


def results(height=6, width=8):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return dict(img=image, img_path='a.jpg', img_shape=image.shape[:2], ori_shape=image.shape[:2])


def darken(results):
    results['img'] //= 2  # in place: must not reach the other branch
    return results


PACK = dict(type='PackUnlabeledInputs')


def test_views_share_geometry_and_nothing_else():
    pipeline = Compose(
        [
            dict(type='AddValidMask'),
            dict(type='RandomCrop', crop_size=(4, 4)),
            dict(type='RandomFlip', prob=0.5),
            MultiBranch(weak=[PACK], strong=[darken, PACK], last=[PACK]),
        ]
    )
    packed = pipeline(results())
    assert list(packed['inputs']) == list(packed['data_samples']) == ['weak', 'strong', 'last']
    weak, strong, last = packed['inputs'].values()
    assert weak.dtype == torch.uint8
    assert weak.shape == (3, 4, 4)
    assert torch.equal(strong, weak // 2)
    assert torch.equal(last, weak)
    metas = [sample.metainfo for sample in packed['data_samples'].values()]
    assert metas[0] == metas[1] == metas[2]


def test_a_branch_may_have_geometry_of_its_own():
    branch = MultiBranch(weak=[PACK], strong=[dict(type='RandomCrop', crop_size=(3, 2)), PACK])
    packed = branch(TRANSFORMS.build(dict(type='AddValidMask'))(results()))
    assert packed['inputs']['weak'].shape == (3, 6, 8)
    assert packed['inputs']['strong'].shape == (3, 3, 2)
    assert packed['data_samples']['strong'].valid_mask.shape == (3, 2)


def shift(results):
    return {**results, **{key: np.roll(results[key], 1, 1) for key in ('img', 'gt_seg_map')}}


ROTATE = dict(type='RandomRotate', prob=1.0, degree=(90, 90))
CUT = dict(type='RandomCutOut', prob=1.0, n_holes=1, cutout_shape=(3, 3), seg_fill_in=255)


@pytest.mark.parametrize(
    ('moving', 'lies_on', 'moved_by'),
    [
        ([], 'weak', []),
        ([CUT], 'weak', []),
        ([darken, ROTATE], 'strong', ['RandomRotate']),
        ([dict(type='RandomCrop', crop_size=(5, 5)), darken], 'strong', ['RandomCrop']),
        ([dict(type='RandomFlip', prob=1.0), CUT, shift], 'strong', ['RandomFlip', 'function']),
    ],
)
def test_views_say_whether_pixels_moved(moving, lies_on, moved_by):
    """Also with padding, and with an image of one color."""
    given = TRANSFORMS.build(dict(type='AddValidMask'))(results(8, 8))
    given['gt_seg_map'][:, 6:] = 255
    given['img'][:] = 0
    packed = MultiBranch(weak=[PACK], strong=[*moving, PACK], last=[darken, PACK])(given)
    metas = {name: sample.metainfo for name, sample in packed['data_samples'].items()}
    assert {name: meta['lies_on'] for name, meta in metas.items()} == dict(
        weak='weak', strong=lies_on, last='weak'
    )
    assert [metas[name]['moved_by'] for name in metas] == [[], moved_by, []]
    assert packed['data_samples']['weak'].valid_mask.data[0].sum() == 8 * 6
    assert packed['data_samples']['last'].valid_mask.data[0].sum() == 8 * 6


def test_views_that_move_in_the_same_way_lie_on_each_other():
    """Two views of the same size, resized alike, of which the third is not."""
    half = dict(type='Resize', scale=(4, 3))
    branch = MultiBranch(weak=[half, PACK], strong=[darken, half, PACK], large=[PACK])
    samples = branch(TRANSFORMS.build(dict(type='AddValidMask'))(results()))['data_samples']
    assert [s.lies_on for s in samples.values()] == ['weak', 'weak', 'large']
    assert [s.moved_by for s in samples.values()] == [['Resize'], ['Resize'], []]


def test_arguments_stay_as_they_are():
    given = TRANSFORMS.build(dict(type='AddValidMask'))(results())
    before = given['img'].copy()
    MultiBranch(weak=[darken, PACK])(given)
    assert np.array_equal(given['img'], before)


def test_none_from_a_branch_makes_the_dataset_draw_again():
    assert MultiBranch(weak=[lambda results: None])(results()) is None


@pytest.mark.parametrize(
    ('branches', 'said'),
    [
        ({}, 'has no branch'),
        (dict(weak=None), 'weak=None is not a list'),
        (dict(weak=[]), r'weak=\[\] is not a list'),
        (dict(weak=dict(type='PackUnlabeledInputs')), 'is not a list'),
    ],
)
def test_bad_branches(branches, said):
    with pytest.raises(ValueError, match=said):
        MultiBranch(**branches)


def test_branch_that_does_not_pack():
    with pytest.raises(ValueError, match='branch weak does not pack'):
        MultiBranch(weak=[lambda results: results])(results())
