"""MultiBranchDataPreprocessor against mmseg's own, and what it adds."""

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_semi.datasets import collate_branches
from mmseg_semi.models.data_preprocessor import MultiBranchDataPreprocessor

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


def image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def labeled(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sample = SegDataSample(metainfo=dict(img_path=f'l{seed}.jpg'))
    label = torch.randint(0, 5, (1, height, width), generator=generator)
    sample.gt_sem_seg = PixelData(data=label)
    return dict(inputs=dict(labeled=image(height, width, seed)), data_samples=dict(labeled=sample))


def unlabeled(height, width, seed=0):
    sample = SegDataSample(metainfo=dict(img_path=f'u{seed}.jpg'))
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, -1] = False
    sample.set_data(dict(valid_mask=PixelData(data=mask)))
    view = image(height, width, seed)
    return dict(
        inputs=dict(weak=view, strong=255 - view),
        data_samples=dict(weak=sample, strong=copy.deepcopy(sample)),
    )


def batch(*sizes):
    """Two labeled images of the first two sizes, unlabeled ones of the others."""
    samples = [labeled(*size, seed=i) for i, size in enumerate(sizes[:2])]
    samples += [unlabeled(*size, seed=i) for i, size in enumerate(sizes[2:])]
    return collate_branches(samples)


def plain(data):
    """The labeled branch as the stock preprocessor gets it."""
    return dict(
        inputs=list(data['inputs']['labeled']),
        data_samples=list(data['data_samples']['labeled']),
    )


@pytest.mark.parametrize('sizes', [[(6, 8)] * 3, [(6, 8), (5, 7), (4, 4)]])
@pytest.mark.parametrize(
    'settings',
    [
        dict(size=(6, 8), **NORM),
        dict(size=(9, 12), pad_val=0.5, seg_pad_val=250, **NORM),
        dict(size_divisor=8, **NORM),
        dict(size=(9, 12), mean=[1, 2, 3], std=[2, 3, 4]),  # integers, no channel swap
        dict(size=(9, 12), mean=[128.0], std=[64.0], rgb_to_bgr=True),
        dict(size=(9, 12)),  # no normalization
    ],
)
def test_labeled_branch_equals_the_stock_preprocessor(sizes, settings):
    """To the last bit, stacked or as a list, with maps and meta information."""
    data = batch(*sizes)
    assert isinstance(data['inputs']['labeled'], list) == (sizes[1] != sizes[0])
    stock = SegDataPreProcessor(**settings)(plain(data), training=True)
    ours = MultiBranchDataPreprocessor(**settings)(data, training=True)
    assert torch.equal(ours['inputs']['labeled'], stock['inputs'])
    assert ours['inputs']['labeled'].dtype == torch.float32
    for mine, theirs in zip(ours['data_samples']['labeled'], stock['data_samples'], strict=True):
        assert torch.equal(mine.gt_sem_seg.data, theirs.gt_sem_seg.data)
        assert mine.metainfo == theirs.metainfo


def test_all_branches_share_size_and_normalization():
    data = batch((6, 8), (6, 8), (5, 7), (6, 6))
    out = MultiBranchDataPreprocessor(size=(8, 8), **NORM)(data, training=True)
    assert {name: tuple(x.shape) for name, x in out['inputs'].items()} == dict(
        labeled=(2, 3, 8, 8), weak=(2, 3, 8, 8), strong=(2, 3, 8, 8)
    )
    mean, std = (torch.tensor(NORM[key]).view(3, 1, 1) for key in ('mean', 'std'))
    for branch in ('weak', 'strong'):
        for i, raw in enumerate(data['inputs'][branch]):
            h, w = raw.shape[1:]
            expected = torch.zeros(3, 8, 8)
            expected[:, :h, :w] = (raw[[2, 1, 0]].float() - mean) / std
            assert torch.equal(out['inputs'][branch][i], expected)


def test_padding_is_not_valid():
    out = MultiBranchDataPreprocessor(size=(8, 9))(batch((6, 8), (6, 8), (5, 7)), training=True)
    for branch in ('weak', 'strong'):
        sample = out['data_samples'][branch][0]
        expected = torch.zeros(1, 8, 9, dtype=torch.bool)
        expected[:, :4, :7] = True  # the fifth row was invalid before
        assert torch.equal(sample.valid_mask.data, expected)
        assert sample.img_shape == (5, 7)
        assert sample.pad_shape == (8, 9)
        assert sample.padding_size == (0, 2, 0, 3)
        assert sample.img_path == 'u0.jpg'


def test_size_divisor_pads_all_to_the_largest():
    out = MultiBranchDataPreprocessor(size_divisor=4)(batch((6, 8), (5, 7), (9, 3)), training=True)
    assert {tuple(x.shape[2:]) for x in out['inputs'].values()} == {(12, 8)}


def test_equal_sizes_need_no_setting():
    out = MultiBranchDataPreprocessor(**NORM)(batch(*[(6, 8)] * 4), training=True)
    assert out['inputs']['weak'].shape == (2, 3, 6, 8)


@pytest.mark.parametrize('sizes', [[(6, 8)] * 3, [(6, 8), (5, 7), (4, 4)]])
def test_the_batch_stays_as_it_is(sizes):
    data = batch(*sizes)
    before = copy.deepcopy(data)
    MultiBranchDataPreprocessor(size=(9, 12), **NORM)(data, training=True)
    for branch, images in before['inputs'].items():
        assert all(torch.equal(a, b) for a, b in zip(images, data['inputs'][branch], strict=True))
        for a, b in zip(before['data_samples'][branch], data['data_samples'][branch], strict=True):
            assert a.metainfo == b.metainfo
            assert a.values()[0].shape == b.values()[0].shape


def test_float_images_are_not_edited():
    data = batch(*[(6, 8)] * 3)
    data['inputs'] = {name: x.float() for name, x in data['inputs'].items()}
    before = {name: x.clone() for name, x in data['inputs'].items()}
    for settings in (NORM, {}):
        MultiBranchDataPreprocessor(**settings)(data, training=True)
        assert all(torch.equal(before[name], x) for name, x in data['inputs'].items())


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('stacked', [True, False])
def test_without_branches_it_is_the_stock_preprocessor(training, stacked):
    data = plain(batch(*[(6, 8)] * 3))
    if stacked:
        data['inputs'] = torch.stack(data['inputs'])
    settings = dict(size=(9, 12), test_cfg=dict(size_divisor=16), **NORM)
    stock = SegDataPreProcessor(**settings)(copy.deepcopy(data), training=training)
    ours = MultiBranchDataPreprocessor(**settings)(copy.deepcopy(data), training=training)
    assert torch.equal(ours['inputs'], stock['inputs'])
    assert [s.metainfo for s in ours['data_samples']] == [s.metainfo for s in stock['data_samples']]


def test_is_registered():
    config = dict(type='MultiBranchDataPreprocessor', size=[6, 8], **NORM)
    assert MODELS.build(config).size == [6, 8]


def test_image_larger_than_size():
    preprocessor = MultiBranchDataPreprocessor(size=(6, 8))
    with pytest.raises(
        ValueError, match=r'u1\.jpg is 7x8 .* weak pipeline, larger .*size=\(6, 8\). Set size'
    ):
        preprocessor(batch((6, 8), (6, 8), (6, 8), (7, 8)), training=True)


def test_crop_larger_than_the_image():
    with pytest.raises(
        ValueError,
        match=r'^l1\.jpg is 5x8 .* labeled pipeline, .*Set data_preprocessor\.size to the crop',
    ):
        MultiBranchDataPreprocessor()(batch((6, 8), (5, 8), (6, 8)), training=True)


def test_branches_of_different_size():
    with pytest.raises(
        ValueError,
        match=r'\(labeled 6x8, weak 4x8, strong 4x8, .*the same crop, or set data_preproc',
    ):
        MultiBranchDataPreprocessor()(batch((6, 8), (6, 8), (4, 8)), training=True)


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(size=(8, 8), size_divisor=8), 'Set one of them'),
        (dict(size=8), r'size=8 must be \(height, width\)'),
        (dict(batch_augments=[dict(type='Mixup')]), 'batch_augments is not applied'),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        MultiBranchDataPreprocessor(**settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_pinned_batches_reach_the_gpu_without_waiting():
    data = batch(*[(6, 8)] * 4)
    data = torch.utils.data._utils.pin_memory.pin_memory(data)
    preprocessor = MultiBranchDataPreprocessor(size=(8, 8), **NORM).cuda()
    preprocessor(data, training=True)
    torch.cuda.set_sync_debug_mode('error')
    try:
        out = preprocessor(data, training=True)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(x.is_cuda for x in out['inputs'].values())
    assert out['data_samples']['weak'][0].valid_mask.data.is_cuda


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_any_number_of_channels(channels):
    mean, std = [10.0 * (i + 1) for i in range(channels)], [2.0 + i for i in range(channels)]
    preprocessor = MultiBranchDataPreprocessor(mean=mean, std=std, bgr_to_rgb=True)
    pixels = torch.arange(2 * channels * 4, dtype=torch.uint8).view(2, channels, 2, 2)
    expected = torch.stack(
        [(pixels[:, i].float() - mean[i]) / std[i] for i in range(channels)], dim=1
    )
    samples = [SegDataSample(metainfo=dict(img_path=f'{i}.tif')) for i in range(2)]
    for sample in samples:
        sample.valid_mask = PixelData(data=torch.ones(1, 2, 2, dtype=torch.bool))
    data = dict(inputs=dict(weak=pixels), data_samples=dict(weak=samples))
    assert torch.equal(preprocessor(data)['inputs']['weak'], expected)
    plain_batch = dict(inputs=list(pixels[:1]), data_samples=samples[:1])
    assert torch.equal(preprocessor(plain_batch)['inputs'], expected[:1])


def test_other_channels_than_mean_are_one_sentence():
    preprocessor = MultiBranchDataPreprocessor(**NORM)
    data = batch((4, 4), (4, 4), (4, 4))
    # One channel would be spread over the three values without a word.
    data['inputs']['weak'] = data['inputs']['weak'][:, :1]
    with pytest.raises(
        ValueError, match=r'u0.jpg has 1 channel\(s\) as loaded, but .* have 3 values'
    ):
        preprocessor(data)
    with pytest.raises(ValueError, match=r'has 4 channel\(s\)'):
        preprocessor(dict(inputs=[torch.zeros(4, 2, 2)]))
    with pytest.raises(ValueError, match='must have one value per channel each'):
        MultiBranchDataPreprocessor(mean=[0.0, 0.0], std=[1.0])


@pytest.mark.parametrize('branches', [True, False])
@pytest.mark.parametrize('channels', [3, 4])
def test_images_of_16_bits(branches, channels):
    """In the units of their files; torch turns few of its operations to uint16."""
    mean, std = [100.0 * (c + 1) for c in range(channels)], [50.0] * channels
    preprocessor = MultiBranchDataPreprocessor(mean=mean, std=std, bgr_to_rgb=True, size=(4, 6))
    image = torch.arange(channels * 24).view(channels, 4, 6) * 40
    expected = (image.flip(0) if channels == 3 else image).float()
    expected = (expected - torch.tensor(mean).view(-1, 1, 1)) / 50
    # The loader gives float32 where torch, before 2.3, has no uint16.
    image = image.to(getattr(torch, 'uint16', torch.float32))
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 6, dtype=torch.uint8)))
    data = dict(inputs=[image], data_samples=[sample])
    if branches:
        data = {key: dict(labeled=value) for key, value in data.items()}
    inputs = preprocessor(data, True)['inputs']
    torch.testing.assert_close((inputs['labeled'] if branches else inputs)[0], expected)
