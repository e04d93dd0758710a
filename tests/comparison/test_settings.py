from mmengine.config import Config

from mmseg_semi.comparison import settings_hash


def config(**changes):
    shapes = {'type': 'ShapesDataset', 'seed': 0, 'num_images': 4}
    found = Config(
        {
            'randomness': {'seed': 0},
            'work_dir': 'a',
            'train_dataloader': {'dataset': shapes},
            'val_dataloader': {'dataset': {'type': 'X', 'data_root': '/a', 'ann_file': 'val.txt'}},
            'custom_hooks': [{'type': 'FreezeHook', 'modules': ['backbone.stem']}],
        }
    )
    found.merge_from_dict(changes)
    return found


def test_seeds_and_places_do_not_change_it():
    same = {
        'randomness.seed': 1,
        'train_dataloader.dataset.seed': 1,
        'work_dir': 'b',
        'val_dataloader.dataset.data_root': '/b',
    }
    first = config()
    assert settings_hash(first) == settings_hash(config(**same))
    assert first.randomness.seed == 0
    assert len(settings_hash(first)) == 12


def test_everything_else_changes_it():
    hashes = {
        settings_hash(config(**change))
        for change in (
            {},
            {'val_dataloader.dataset.ann_file': 'other.txt'},
            {'train_dataloader.dataset.num_images': 5},
            {'custom_hooks.0.modules': ['backbone.layer1']},
            {'randomness.deterministic': True},
        )
    }
    assert len(hashes) == 5
