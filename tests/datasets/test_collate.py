"""collate_branches: what lies where in a batch."""

import pytest
import torch
from mmengine.registry import FUNCTIONS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_semi.datasets import collate_branches
from mmseg_semi.datasets.collate import PinnableSamples


def sample(value, *branches, size=(4, 5)):
    image = torch.full((3, *size), value, dtype=torch.uint8)
    data = SegDataSample(metainfo=dict(img_path=f'{value}.jpg'))
    return dict(inputs=dict.fromkeys(branches, image), data_samples=dict.fromkeys(branches, data))


def paths(samples):
    return [s.img_path for s in samples]


def test_groups_by_branch_and_stacks():
    batch = collate_branches(
        [sample(1, 'labeled'), sample(2, 'labeled'), sample(3, 'weak', 'strong')]
    )
    assert list(batch['inputs']) == list(batch['data_samples']) == ['labeled', 'weak', 'strong']
    assert batch['inputs']['labeled'].dtype == torch.uint8
    assert batch['inputs']['labeled'].shape == (2, 3, 4, 5)
    assert batch['inputs']['labeled'][:, 0, 0, 0].tolist() == [1, 2]
    assert batch['inputs']['strong'].shape == (1, 3, 4, 5)
    assert paths(batch['data_samples']['labeled']) == ['1.jpg', '2.jpg']
    assert paths(batch['data_samples']['weak']) == ['3.jpg']


def test_different_sizes_stay_a_list():
    batch = collate_branches([sample(1, 'weak'), sample(2, 'weak', size=(6, 5))])
    assert [tuple(x.shape) for x in batch['inputs']['weak']] == [(3, 4, 5), (3, 6, 5)]


def test_plain_samples_are_collated_as_ever():
    plain = [dict(inputs=torch.zeros(3, 2, 2), data_samples=SegDataSample()) for _ in range(2)]
    batch = collate_branches(plain)
    assert isinstance(batch['inputs'], list)
    assert len(batch['data_samples']) == 2


def test_is_registered():
    assert FUNCTIONS.get('collate_branches') is collate_branches


def test_samples_pin_every_tensor(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda t: pinned.append(t) or t.clone())
    data = SegDataSample(metainfo=dict(img_path='a.jpg'))
    data.gt_sem_seg = PixelData(data=torch.arange(4).view(1, 2, 2))
    data.set_data(dict(valid_mask=PixelData(data=torch.ones(1, 2, 2, dtype=torch.bool))))
    result = torch.utils.data._utils.pin_memory.pin_memory(
        dict(data_samples=dict(labeled=PinnableSamples([data])))
    )['data_samples']['labeled']
    assert [tuple(t.shape) for t in pinned] == [(1, 2, 2), (1, 2, 2)]
    assert isinstance(result, PinnableSamples)
    assert result[0] is not data
    assert result[0].img_path == 'a.jpg'
    assert result[0].gt_sem_seg.data.flatten().tolist() == [0, 1, 2, 3]
    assert result[0].valid_mask.data.dtype == torch.bool


@pytest.mark.skipif(not torch.cuda.is_available(), reason='pinned memory needs a GPU')
def test_pinned_on_a_gpu_machine():
    data = SegDataSample()
    data.gt_sem_seg = PixelData(data=torch.zeros(1, 2, 2, dtype=torch.int64))
    assert PinnableSamples([data]).pin_memory()[0].gt_sem_seg.data.is_pinned()
