"""Published partitions told by their fingerprints: made lists, the package's registry, the real lists."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from mmseg_semi.datasets.fingerprints import (
    SKETCH_SIZE,
    describe,
    identify,
    image_names,
    published,
    registry_text,
)
from mmseg_semi.datasets.split_lists import read_list
from mmseg_semi.datasets.splits import order_free_hash

LISTS = Path(
    os.environ.get('SPLITS_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'splits')
)
ALL = [f'2020_{i:06d}' for i in range(4000)]


def draw(count, seed):
    return random.Random(seed).sample(ALL, count)


@pytest.fixture(scope='module')
def registry():
    """Two rivals of 100, one of 1000, one of another dataset, and whole lists."""
    lists = {
        ('voc12', 'labeled', 'one'): draw(100, 0),
        ('voc12', 'labeled', 'two'): draw(100, 0)[:30] + draw(100, 1)[:70],
        ('voc12', 'labeled', 'large'): draw(1000, 2),
        ('cityscapes', 'labeled', 'city'): [f'ulm_000000_{i:06d}' for i in range(100)],
        ('voc12', 'val', ''): [f'2021_{i:06d}' for i in range(50)],
        ('voc12', 'train', ''): ALL,
    }
    entries = [
        describe(dataset, role, [(family, f'Author {family}')], ids)
        for (dataset, role, family), ids in lists.items()
    ]
    one, two = entries[:2]
    shared = len(set(draw(100, 0)) & set(lists['voc12', 'labeled', 'two']))
    entries[0] = one._replace(common={two.sha256: shared})
    return entries


def test_names_forget_folders_and_endings():
    paths = ['a/JPEGImages/x.jpg', r'd\y.PNG', 'ulm/ulm_0_leftImg8bit.png', 'ulm/ulm_1', 'v1.2']
    assert image_names(paths) == ['x', 'y', 'ulm_0', 'ulm_1', 'v1.2']


def test_a_published_list_is_found_in_any_order_and_form(registry):
    ids = draw(100, 0)
    for form in (ids, ids[::-1], [f'/data/JPEGImages/{i}.jpg' for i in ids], [*ids, ids[0]]):
        identity = identify(form, registry)
        assert identity.match is registry[0]
        assert identity.count == 100
        assert identity.sha256 == order_free_hash(ids)
    assert identity.sentence() == 'Pascal VOC 2012, one, 100 images (Author one)'


def test_rivals_are_lists_of_the_same_size_with_what_they_share(registry):
    identity = identify(draw(100, 0), registry)
    (rival,) = identity.rivals
    assert rival.published is registry[1]
    assert rival.common == registry[0].common[registry[1].sha256] >= 30
    assert (
        str(rival)
        == f'Pascal VOC 2012, two, 100 images (Author two), {rival.common} of them in common'
    )
    assert identify(draw(1000, 2), registry).rivals == []


def test_one_image_less_is_unknown_and_near(registry):
    identity = identify(draw(100, 0)[1:], registry)
    assert identity.match is None
    assert identity.rivals == []
    nearest = identity.overlaps[0]
    assert (nearest.published, nearest.common, nearest.exact) == (registry[0], 99, True)
    assert identity.sentence() == (
        'unknown, no published partition; nearest: Pascal VOC 2012, one, 100 images (Author one), 99 of '
        'them in common'
    )
    assert identity.sentence(least=0.999) != identity.sentence(least=1.0)


@pytest.mark.parametrize('share', [0.0, 0.1, 0.5, 0.9])
def test_a_sketch_estimates_the_overlap(registry, share):
    """Within four standard errors, of a sketch of 256 of 1000."""
    large = draw(1000, 2)
    rest = [name for name in ALL if name not in set(large)]
    ids = large[: int(1000 * share)] + rest[: 1000 - int(1000 * share)]
    overlap = next(o for o in identify(ids, registry).overlaps if o.published is registry[2])
    assert not overlap.exact
    error = np.sqrt(share * (1 - share) / SKETCH_SIZE) * 1000
    assert abs(overlap.common - 1000 * share) <= 4 * error
    assert str(overlap).endswith(f'about {overlap.common} of them in common')


def test_nothing_in_common_is_just_unknown(registry):
    for ids in (['x', 'y'], [], ['not UTF-8: \udcff', 'é']):
        assert identify(ids, registry).sentence() == 'unknown, no published partition'


def test_whole_lists_are_known_but_never_the_nearest(registry):
    assert identify(ALL, registry).sentence() == (
        'the whole training set of Pascal VOC 2012, 4000 images (Author )'
    )
    val = [f'2021_{i:06d}' for i in range(50)]
    assert (
        identify(val, registry).sentence().startswith('the validation set of Pascal VOC 2012, 50')
    )
    assert all(o.published.role == 'labeled' for o in identify(val[1:], registry).overlaps)


def test_a_registry_file_says_the_same(registry, tmp_path):
    path = tmp_path / 'registry.json'
    path.write_text(registry_text(registry))
    read = published(str(path))
    assert sorted(read, key=lambda e: e.sha256) == sorted(registry, key=lambda e: e.sha256)
    assert registry_text(reversed(read)) == path.read_text()
    assert draw(1, 0)[0] not in path.read_text()


def test_what_is_no_registry_is_said(tmp_path):
    for text in ('{', '[]', '{"lists": [{"count": 1}]}', '{"lists": 3}'):
        path = tmp_path / f'{len(text)}.json'
        path.write_text(text)
        with pytest.raises(ValueError, match=r'is not a registry of partitions\. Make it by'):
            published(str(path))
    with pytest.raises(FileNotFoundError, match=r'does not exist\. Make it by'):
        published(str(tmp_path / 'gone.json'))


# ------------------------------------------------------------------------------------ the package's registry


def test_the_package_knows_the_partitions_of_its_configs():
    known = {
        (entry.dataset, family, entry.count)
        for entry in published()
        for family, _ in entry.names
        if entry.role == 'labeled'
    }
    for family, counts in {
        'classic': (92, 183, 366, 732, 1464),
        'blender-u2pl': (662, 1323, 2646, 5291),
        'blender-cps': (662, 1323, 2646, 5291),
        'blender-stpp': (662, 1323, 2645),
    }.items():
        assert {('voc12', family, count) for count in counts} <= known
    for family, counts in {
        'u2pl': (186, 372, 744, 1488),
        'cps': (186, 372, 744, 1488),
        'stpp': (100, 372, 744),
    }.items():
        assert {('cityscapes', family, count) for count in counts} <= known


def test_entries_are_consistent():
    entries = published()
    assert len({entry.sha256 for entry in entries}) == len(entries)
    for entry in entries:
        assert len(entry.sketch) == min(SKETCH_SIZE, entry.count)
        assert {len(value) for value in entry.sketch} == {10}
        rivals = {other.sha256: other for other in entries if entry.is_rival(other)}
        assert set(entry.common) == set(rivals)
        for sha256, common in entry.common.items():
            assert rivals[sha256].common[entry.sha256] == common <= entry.count
    counts = {(e.dataset, e.role): e.count for e in entries if e.role != 'labeled'}
    assert counts == {('voc12', 'train'): 10582, ('voc12', 'val'): 1449, ('cityscapes', 'val'): 500}


# ------------------------------------------------------------------------------------ the real lists


def real(where):
    if not LISTS.is_dir():
        pytest.skip(f'no published lists at {LISTS}. Set SPLITS_ROOT')
    return read_list(str(LISTS / where)).ids


@pytest.mark.parametrize(
    ('where', 'families', 'names'),
    [
        ('unimatch/pascal/1_16', ['blender-cps'], ['CPS train_aug_labeled_1-16', 'UniMatch 1_16']),
        ('unimatch/pascal/u2pl_1_16', ['blender-u2pl'], ['U2PL 662', 'UniMatch u2pl_1_16']),
        ('stpp/pascal/1_16/split_1', ['blender-stpp'], ['ST++ 1_16/split_1']),
        ('unimatch/cityscapes/1_8', ['cps'], ['CPS train_aug_labeled_1-8', 'UniMatch 1_8']),
        ('stpp/cityscapes/1_8/split_0', ['stpp', 'u2pl'], ['ST++ 1_8/split_0', 'U2PL 372']),
    ],
)
def test_real_lists_have_all_their_names(where, families, names):
    match = identify(real(f'{where}/labeled.txt')).match
    assert list(dict.fromkeys(family for family, _ in match.names)) == families
    assert [name for _, name in match.names] == names


@pytest.mark.parametrize(
    ('one', 'other', 'common'),
    [
        ('u2pl/pascal/662', 'unimatch/pascal/1_16', 43),
        ('u2pl/cityscapes/186', 'unimatch/cityscapes/1_16', 8),
    ],
)
def test_families_of_one_count_share_little(one, other, common):
    ids, others = (real(f'{where}/labeled.txt') for where in (one, other))
    assert len(set(ids) & set(others)) == common
    wanted = identify(others).match
    assert next(o for o in identify(ids).rivals if o.published == wanted).common == common


def test_real_overlaps_are_estimated_within_their_error():
    """Of unknown lists, made of two published ones, with every published list."""
    ids = (
        real('u2pl/pascal/1323/labeled.txt')[:700]
        + real('stpp/pascal/1_8/split_0/labeled.txt')[:700]
    )
    paths = sorted(LISTS.glob('*/pascal/**/*labeled*.txt'))
    true = {}
    for path in paths:
        if 'unlabeled' not in path.name and path.stat().st_size:
            names = set(read_list(str(path)).ids)
            true[order_free_hash(names)] = len(names & set(ids))
    for overlap in identify(ids).overlaps:
        entry = overlap.published
        if entry.dataset != 'voc12':
            assert overlap.common == 0
        elif overlap.exact:
            assert overlap.common == true[entry.sha256]
        else:
            assert abs(overlap.common - true[entry.sha256]) <= 4 * 0.5 / 16 * entry.count


def test_no_list_is_in_the_package():
    """Hashes alone: no id of a published list is in the registry."""
    text = Path(published.__wrapped__.__globals__['REGISTRY']).read_text()
    json.loads(text)
    assert '2007_0' not in text
    assert 'aachen' not in text
