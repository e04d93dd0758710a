"""Classes of a teacher as classes of a student: which indices are meant, and sums of their probabilities."""

import pytest
import torch

from mmseg_semi.self_training.label_map import LabelMap, merge_classes

TEACHER = ('wall', 'car', 'bus', 'tree')
STUDENT = ('road', 'vehicle', 'plant')


def indices(entries, names=TEACHER, number=4):
    return LabelMap(entries, STUDENT).indices(names, number, 'x.pth')


@pytest.mark.parametrize(
    'entries',
    [
        {'car': 'vehicle', 'bus': 'vehicle', 'tree': 'plant'},
        {'wall': 255, 1: 1, 2: 'vehicle', 'tree': 2},
    ],
)
def test_names_and_indices(entries):
    assert indices(entries) == [255, 1, 1, 2]
    assert indices({1: 1, 2: 'road'}, None) == [255, 1, 0, 255]


def test_probabilities_of_merged_classes_are_added():
    """Vehicle has 0.3 + 0.25; no teacher class alone beats the wall's 0.4."""
    probs = torch.tensor([[0.4, 0.3, 0.25, 0.05], [0.6, 0.2, 0.1, 0.1]]).T[None, :, None]
    merged = merge_classes(probs, [255, 1, 1, 2], 3)
    expected = torch.tensor([[0, 0.55, 0.05, 0.4], [0, 0.3, 0.1, 0.6]]).T[None, :, None]
    torch.testing.assert_close(merged, expected)


def test_a_line_tells_what_becomes_of_the_classes():
    told = LabelMap({'car': 'vehicle', 'bus': 1}, STUDENT).told([255, 1, 1, 255], TEACHER)
    assert told == (
        "The student's classes by the teacher's: vehicle = car + bus; road, plant only from labeled images; "
        '2 ignored (void).'
    )


@pytest.mark.parametrize(
    ('entries', 'names', 'sentence'),
    [
        (
            {'cra': 'vehicle'},
            TEACHER,
            r"the class 'cra', which x.pth does not have. Choose one of wall, car, bus",
        ),
        ({4: 'vehicle'}, TEACHER, r'the class 4, which x.pth does not have'),
        (
            {'car': 'vehicle'},
            None,
            r"the class 'car', which .* has no class names, so give indices from 0 to 3",
        ),
        (
            {'car': 'vehikel'},
            TEACHER,
            r"label_map\['car'\]='vehikel' is not a class of the student. .* or 255",
        ),
        ({'car': 3}, TEACHER, r"label_map\['car'\]=3 is not a class of the student"),
        ({'car': True}, TEACHER, r"label_map\['car'\]=True is not a class of the student"),
        ({}, TEACHER, r'maps no class. Give a dict'),
        (['car'], TEACHER, r'maps no class. Give a dict'),
    ],
)
def test_what_is_no_class(entries, names, sentence):
    with pytest.raises(ValueError, match=sentence):
        indices(entries, names)
