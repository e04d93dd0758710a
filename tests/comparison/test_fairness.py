"""What configs have in common, read from them; tools/benchmark_methods.py's tests have the rest."""

import pytest
from tiny_run import tiny_config, tiny_stages_config, write_images

from mmseg_semi.comparison import common_reference, differences, facts
from mmseg_semi.comparison.fairness import images_per_step


def test_methods_on_the_same_files_have_the_same_facts(tmp_path):
    images = write_images(tmp_path)
    plain, imas = (facts(tiny_config('work', method, images=images)) for method in (None, 'IMAS'))
    assert plain['unlabelled images'] is None
    assert len(imas['unlabelled images']) == 9
    assert len(plain['labelled images']) == 5
    # Image and mask.
    assert plain['labelled images'][0].count(str(tmp_path)) == 2
    reference = common_reference([plain, imas])
    assert reference['unlabelled images'] == imas['unlabelled images']
    assert differences(plain, reference) == differences(imas, reference) == {}


def test_other_lists_and_masks_are_found(tmp_path):
    images = write_images(tmp_path)
    reference = facts(tiny_config('work', images=images))
    (tmp_path / 'fewer.txt').write_text(
        '\n'.join((tmp_path / 'unlabeled.txt').read_text().split()[1:])
    )
    changed = facts(
        tiny_config(
            'work', images=images, train_dataloader__dataset__unlabeled__ann_file='fewer.txt'
        )
    )
    assert differences(changed, reference) == {'unlabelled images': '8, not 9, 8 of them the same'}
    prefix = {'img_path': 'img_dir', 'seg_map_path': 'elsewhere'}
    (tmp_path / 'elsewhere').mkdir()
    changed = facts(tiny_config('work', images=images, val_dataloader__dataset__data_prefix=prefix))
    assert differences(changed, reference) == {'validation images': '4, not 4, 0 of them the same'}


def test_optimizer_and_geometry_are_told():
    reference = facts(tiny_config('work'))
    flip = 'train_dataloader__dataset__unlabeled__pipeline'
    pipeline = tiny_config('work').train_dataloader.dataset.unlabeled.pipeline
    pipeline[4]['prob'] = 0.25
    changed = facts(tiny_config('work', optim_wrapper__optimizer__lr=0.5, **{flip: pipeline}))
    assert differences(changed, reference) == {
        'geometry of unlabelled images': '2.prob: 0.25, not 0.5',
        'optimizer': 'optimizer.lr: 0.5, not 0.005',
    }


def test_labelled_share_of_self_training_is_that_of_its_list():
    cfg = tiny_stages_config('work', 'st')
    # Without pseudo-labels all are labelled; with 9, 5 labelled images are in the list twice.
    assert images_per_step(cfg, 5, 9) == pytest.approx((4 * 10 / 19, 4 * 9 / 19))
    cfg.train_dataloader.dataset.pseudo_labeled = None
    assert images_per_step(cfg, 5, 0) == (4.0, 0.0)
    assert images_per_step(tiny_config('work', labeled=3, unlabeled=1), 5, 9) == (3.0, 1.0)
    assert images_per_step(tiny_config('work', None, labeled=3), 5, 0) == (3.0, 0.0)


def test_a_training_of_epochs_has_no_equal_length():
    with pytest.raises(
        ValueError, match=r'trains for 2 epochs of its own list.*train_cfg.max_iters'
    ):
        facts(tiny_config('work', epochs=2))
