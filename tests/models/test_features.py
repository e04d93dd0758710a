import pytest
import torch

from mmseg_semi.models.features import channel_widths, map_features


def pyramid():
    return torch.ones(2, 4, 8, 8), torch.ones(2, 16, 4, 4)


def test_every_tensor_of_every_stage_is_reached():
    first, second = pyramid()
    stages = [first, (second, torch.ones(2, 16))]
    doubled = map_features(lambda x: 2 * x, stages)
    assert [doubled[0].shape, *(x.shape for x in doubled[1])] == [
        first.shape,
        second.shape,
        (2, 16),
    ]
    assert all((x == 2).all() for x in (doubled[0], *doubled[1]))
    # The second argument has one thing for each stage, which all its tensors get.
    scaled = map_features(lambda x, factor: factor * x, stages, [3, 5])
    assert [scaled[0].mean(), *(x.mean() for x in scaled[1])] == [3, 5, 5]


def test_widths_of_maps_and_of_pairs_with_a_class_token():
    first, second = pyramid()
    assert channel_widths((first, second)) == [4, 16]
    assert channel_widths([[second, torch.ones(2, 16)], first]) == [16, 4]


@pytest.mark.parametrize(
    'stage', [torch.ones(2, 65, 16), (torch.ones(2, 4, 8, 8), torch.ones(2, 5)), 'tokens', ()]
)
def test_other_features_are_refused(stage):
    with pytest.raises(ValueError, match=r"stage 1 of the features .* out_type='featmap'"):
        channel_widths([torch.ones(2, 4, 8, 8), stage])
