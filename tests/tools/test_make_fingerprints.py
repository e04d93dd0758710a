"""tools/make_fingerprints.py: a registry from made lists, and the package's own from the real ones."""

import importlib.util
import os
from pathlib import Path

import pytest
from processes import TOOLS

from mmseg_semi.datasets.fingerprints import REGISTRY, identify, published

LISTS = Path(
    os.environ.get('SPLITS_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'splits')
)

spec = importlib.util.spec_from_file_location('make_fingerprints', TOOLS / 'make_fingerprints.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def write(root, where, names):
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(names))


def test_lists_get_their_families_and_all_their_names(tmp_path, capsys):
    ids = [f'2007_{i:06d}' for i in range(40)]
    pairs = [f'JPEGImages/{i}.jpg SegmentationClass/{i}.png' for i in ids]
    root = tmp_path / 'lists'
    write(root, 'u2pl/pascal/662/labeled.txt', ids[:10])
    write(root, 'unimatch/pascal/u2pl_1_16/labeled.txt', pairs[9::-1])
    write(root, 'unimatch/pascal/1_16/labeled.txt', pairs[6:16])
    write(root, 'u2pl/pascal/662/unlabeled.txt', ids[10:])
    write(root, 'stpp/pascal/732/split_1/labeled.txt', [])
    write(root, 'unimatch/pascal/val.txt', pairs[20:])
    write(root, 'others/pascal/1/labeled.txt', ids[:3])
    write(root, 'u2pl/pascal/notes.txt', ['nothing'])
    out = tmp_path / 'registry.json'
    tool.main([str(root), '--out', str(out)])
    printed = capsys.readouterr().out
    assert 'stpp/pascal/732/split_1/labeled.txt is empty and left out.' in printed
    assert printed.endswith('registry.json: 3 lists under 4 names.\n')
    identity = identify(ids[:10], published(str(out)))
    assert identity.match.names == (
        ('blender-u2pl', 'U2PL 662'),
        ('blender-u2pl', 'UniMatch u2pl_1_16'),
    )
    (rival,) = identity.rivals
    assert rival.published.names == (('blender-cps', 'UniMatch 1_16'),)
    assert (rival.common, rival.exact) == (4, True)
    assert identify(ids[20:], published(str(out))).match.role == 'val'


def test_no_list_is_dropped_unless_said_so(tmp_path):
    ids = [f'2007_{i:06d}' for i in range(40)]
    root, out = tmp_path / 'lists', tmp_path / 'registry.json'
    write(root, 'u2pl/pascal/662/labeled.txt', ids[:10])
    write(root, 'unimatch/pascal/u2pl_1_16/labeled.txt', ids[:10])
    write(root, 'u2pl/pascal/1323/labeled.txt', ids[:20])
    tool.main([str(root), '--out', str(out)])
    before = out.read_bytes()
    tool.main([str(root), '--out', str(out)])
    assert out.read_bytes() == before
    (root / 'unimatch/pascal/u2pl_1_16/labeled.txt').unlink()  # a name of a list that stays
    with pytest.raises(SystemExit) as caught:
        tool.main([str(root), '--out', str(out)])
    assert caught.value.code == (
        f'error: {out} has 1 lists that would be lost, or a name of theirs, the first is Pascal VOC 2012, '
        'blender-u2pl, 10 images (U2PL 662, UniMatch u2pl_1_16). Give a ROOT with all of them, another --out, '
        'or --drop.'
    )
    (root / 'u2pl/pascal/662/labeled.txt').unlink()
    with pytest.raises(SystemExit, match='has 1 lists that would be lost'):
        tool.main([str(root), '--out', str(out)])
    assert out.read_bytes() == before
    tool.main([str(root), '--out', str(out), '--drop'])
    assert out.read_bytes().count(b'"sha256"') == 1
    out.write_text('something else')
    with pytest.raises(SystemExit, match=r'registry\.json is not a registry of partitions'):
        tool.main([str(root), '--out', str(out)])
    assert out.read_text() == 'something else'


def test_the_packages_own_registry_is_guarded(tmp_path, monkeypatch):
    """It is where a run without --out writes."""
    written = []
    monkeypatch.setattr(tool, 'write_bytes', lambda path, content: written.append(path))
    write(tmp_path, 'u2pl/pascal/662/labeled.txt', ['2007_000032'])
    with pytest.raises(SystemExit, match=r'fingerprints\.json has \d+ lists that would be'):
        tool.main([str(tmp_path)])
    assert not written


def test_errors_are_one_sentence(tmp_path):
    with pytest.raises(
        SystemExit, match=r'error: .* holds no list of unimatch, u2pl, cps, stpp\. Put'
    ):
        tool.main([str(tmp_path)])
    write(tmp_path, 'u2pl/cityscapes/186/labeled.txt', ['2007_000032'])
    with pytest.raises(SystemExit, match=r'lists images of voc12 and not of cityscapes\. Put'):
        tool.main([str(tmp_path), '--out', str(tmp_path / 'o.json')])
    assert not (tmp_path / 'o.json').exists()


def test_the_registry_is_that_of_the_published_lists(tmp_path):
    if not LISTS.is_dir():
        pytest.skip(f'no published lists at {LISTS}. Set SPLITS_ROOT')
    tool.main([str(LISTS), '--out', str(tmp_path / 'registry.json')])
    assert (tmp_path / 'registry.json').read_bytes() == Path(REGISTRY).read_bytes()
