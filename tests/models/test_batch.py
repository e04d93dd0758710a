"""A batch by branch: labels, valid masks, and what is said when a branch is missing."""

import pytest
import torch
from tiny import labeled_sample, unlabeled_sample

from mmseg_semi.models.batch import Batch


def parts(num=2):
    """Images and samples of three branches; every image has a mask of its own."""
    generator = torch.Generator().manual_seed(0)
    names = ('labeled', 'weak', 'strong')
    inputs = {name: torch.randn(num, 3, 6, 8, generator=generator) for name in names}
    masks = torch.rand(2, num, 6, 8, generator=generator) > 0.5
    label = torch.randint(0, 4, (num, 6, 8), dtype=torch.uint8, generator=generator)
    samples = {
        'labeled': [labeled_sample(one) for one in label],
        'weak': [unlabeled_sample(mask) for mask in masks[0]],
        'strong': [unlabeled_sample(mask) for mask in masks[1]],
    }
    return inputs, samples, label, masks


def test_every_branch_has_its_own_images_and_masks():
    inputs, samples, label, masks = parts()
    batch = Batch.of(inputs, samples, ('weak', 'strong'))
    assert batch.size == (6, 8)
    assert batch.labeled.images is inputs['labeled']
    assert torch.equal(batch.labeled.label, label.long())
    assert batch.labeled.label.dtype == torch.int64
    assert batch.labeled.samples is samples['labeled']
    for branch, mask in zip(('weak', 'strong'), masks, strict=True):
        view = getattr(batch, branch)
        assert view.images is inputs[branch]
        assert view.valid.dtype == torch.bool
        assert torch.equal(view.valid, mask)
        assert len(view) == 2


@pytest.mark.parametrize(
    'changed',
    [
        {'flip': True},
        {'flip_direction': 'vertical'},
        {'scale_factor': (0.5, 1.0)},
        {'img_shape': (5, 8)},
    ],
)
def test_views_of_an_image_have_one_geometry(changed):
    inputs, samples, _, _ = parts()
    same = {'img_path': 'a.png', 'flip': False, 'flip_direction': 'horizontal'}
    same |= {'scale_factor': (1.0, 1.0), 'img_shape': (6, 8)}
    # The two images differ, and their views do not.
    for views in (samples['weak'], samples['strong']):
        views[0].set_metainfo(same)
        views[1].set_metainfo({**same, **changed})
    Batch.of(inputs, samples, ('weak', 'strong'))
    samples['strong'][0].set_metainfo(changed)
    # The labeled images and a branch that the method does not need may differ.
    Batch.of(inputs, samples, ('weak',))
    (key,) = changed
    with pytest.raises(
        ValueError, match=rf'The views of a\.png differ in {key} \(weak: .*Move the'
    ):
        Batch.of(inputs, samples, ('weak', 'strong'))


def test_views_whose_pixels_moved_are_refused():
    """MultiBranch says it of a crop or rotation inside a branch, which leaves no other trace."""
    inputs, samples, _, _ = parts()
    for name in ('weak', 'strong'):
        for sample in samples[name]:
            sample.set_metainfo(dict(img_path='b.png', lies_on='weak', moved_by=[]))
    Batch.of(inputs, samples, ('weak', 'strong'))
    samples['strong'][1].set_metainfo(dict(lies_on='strong', moved_by=['RandomRotate']))
    with pytest.raises(
        ValueError,
        match=r"The views of b\.png differ in moved_by \(weak: \[\], strong: \['RandomRotate'\]\), .*rotate",
    ):
        Batch.of(inputs, samples, ('weak', 'strong'))


def test_padding_counts_where_it_is_not_ignored():
    inputs, samples, _, _ = parts()
    valid = Batch.of(inputs, samples, ('weak',), ignore_padding=False).weak.valid
    assert valid.shape == (2, 6, 8)
    assert valid.dtype == torch.bool
    assert valid.all()


def test_a_mask_is_put_together_once():
    inputs, samples, _, _ = parts()
    batch = Batch.of(inputs, samples, ('weak',))
    assert batch.weak.valid is batch.weak.valid
    assert batch.labeled.label is batch.labeled.label


def test_a_branch_that_the_method_does_not_need_is_none():
    inputs, samples, _, _ = parts()
    batch = Batch.of(inputs, samples, ('weak',))
    assert batch.strong is None
    assert batch.strong2 is None


def test_a_missing_branch_is_named():
    inputs, samples, _, _ = parts()
    with pytest.raises(
        ValueError, match="ESL needs the branch 'strong2', but the batch has labeled, strong"
    ):
        Batch.of(inputs, samples, ('weak', 'strong2'), method='ESL')
    del inputs['labeled']
    with pytest.raises(ValueError, match="the method needs the branch 'labeled'"):
        Batch.of(inputs, samples, ('weak',))


def test_a_batch_without_branches_is_refused():
    with pytest.raises(
        ValueError, match=r'ESL needs a batch with named branches, got a Tensor\. Use '
    ):
        Batch.of(torch.zeros(2, 3, 4, 4), [], ('weak',), method='ESL')
