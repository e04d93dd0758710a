import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_semi.datasets.paths import check_data_paths


@pytest.fixture
def root(tmp_path):
    for folder in ('JPEGImages', 'SegmentationClass'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'train.txt').write_text('a\n')
    return tmp_path


def voc(root, **changes):
    return dict(
        type='PascalVOCDataset',
        data_root=str(root),
        ann_file='train.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        **changes,
    )


def test_complete_data_pass(root):
    config = voc(root)
    check_data_paths(config)
    assert config == voc(root)
    unlabeled = dict(type='UnlabeledDataset', data_root=str(root), img_dir='JPEGImages')
    check_data_paths(dict(type='LabeledUnlabeledDataset', labeled=config, unlabeled=unlabeled))


@pytest.mark.parametrize(
    ('gone', 'key'),
    [
        ('train.txt', 'ann_file'),
        ('JPEGImages', 'data_prefix.img_path'),
        ('SegmentationClass', 'data_prefix.seg_map_path'),
    ],
)
def test_one_sentence_names_path_key_and_preparation(root, gone, key):
    (root / gone).unlink() if gone.endswith('.txt') else (root / gone).rmdir()
    for config in (
        voc(root),
        dict(type='RepeatDataset', dataset=voc(root)),
        dict(type='ConcatDataset', datasets=[voc(root)]),
        dict(type='LabeledUnlabeledDataset', labeled=voc(root), unlabeled={}),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            check_data_paths(config)
        message = str(caught.value)
        assert message.startswith(f'Pascal VOC 2012: {root / gone} (from {key}) does not exist')
        assert 'docs/datasets.md#pascal-voc-2012' in message
        assert message.count('. ') <= 1


def test_missing_root_is_named_first(tmp_path):
    with pytest.raises(FileNotFoundError, match='from data_root'):
        check_data_paths(voc(tmp_path / 'nowhere'))


def test_unlabeled_half_goes_by_its_sibling(root):
    unlabeled = dict(type='UnlabeledDataset', data_root=str(root), ann_file='nolist.txt')
    with pytest.raises(FileNotFoundError, match=r'Pascal VOC 2012: .*nolist.txt'):
        check_data_paths(dict(labeled=voc(root), unlabeled=unlabeled))
    with pytest.raises(FileNotFoundError, match=r'The dataset: .*#your-own-images'):
        check_data_paths(unlabeled)


def test_absolute_and_remote_paths(root, tmp_path):
    check_data_paths(dict(type='X', data_root=str(root), ann_file=str(root / 'train.txt')))
    check_data_paths(dict(type='X', data_root='s3://bucket/voc', ann_file='train.txt'))
    check_data_paths(voc(tmp_path / 'nowhere', backend_args=dict(backend='petrel')))


def test_datasets_without_files_pass():
    check_data_paths(dict(type='ShapesDataset', num_images=3))


def test_checked_dataset_builds_the_stock_class_or_says_what_is_missing(root):
    init_default_scope('mmseg')
    config = voc(root)
    config.update(type='CheckedDataset', of='PascalVOCDataset')
    assert type(DATASETS.build(config)).__name__ == 'PascalVOCDataset'
    (root / 'train.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'train.txt .* does not exist'):
        DATASETS.build(config)
