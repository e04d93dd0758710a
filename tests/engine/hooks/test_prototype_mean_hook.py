"""The first prototypes of DeS4 as means over all labeled images."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from tiny_run import build_runner, tiny_config

from mmseg_semi.datasets import crop_size
from mmseg_semi.engine import PrototypeMeanHook
from mmseg_semi.engine.hooks import _labeled_images
from mmseg_semi.functional.resizing import resize_nearest


def train(work_dir, hook=True, **changes):
    changes.setdefault('model__semi_train_cfg__prototype_init', 'labeled_set')
    config = tiny_config(
        work_dir, 'DeS4', train_cfg__max_iters=1, train_cfg__val_interval=9, **changes
    )
    if hook:
        config.custom_hooks.append({'type': 'PrototypeMeanHook'})
    runner = build_runner(config)
    return runner


class Stop(Exception):
    pass


def test_prototypes_are_the_means_before_the_first_iteration(tmp_path):
    # Cropped in one direction, padded in the other, as images of any size are.
    runner = train(
        tmp_path / 'work',
        model__segmentor__data_preprocessor__size=(24, 40),
        train_dataloader__dataset__labeled__pipeline=[
            {'type': 'LoadShapes'},
            {'type': 'RandomCrop', 'crop_size': (24, 40)},
            {'type': 'PackSegInputs'},
        ],
    )
    found = {}

    def stop(model):
        found['vectors'] = model.prototypes.vectors.clone()
        raise Stop

    model = runner.model
    model.train_step = lambda *args, **kwargs: stop(model)
    with pytest.raises(Stop):
        runner.train()
    dataset = runner.train_dataloader.dataset.labeled
    dataset.pipeline.transforms = [
        t for t in dataset.pipeline.transforms if type(t).__name__.startswith(('Load', 'Pack'))
    ]
    # 5 images of 32 x 32 in batches of 2, the last of them one more; of each, 24 rows and 32 columns of its
    # center, and 8 more columns of padding.
    model.teacher.eval()
    model.teacher.decode_head.train()
    sums = torch.zeros_like(found['vectors'], dtype=torch.float64)
    for indices in ([0, 2, 4], [1, 3]):
        samples = [dataset[index] for index in indices]
        image = torch.stack([sample['inputs'] for sample in samples])[:, [2, 1, 0]].float()
        image = (image - model.data_preprocessor.mean) / model.data_preprocessor.std
        image = F.pad(image[:, :, 4:28], (0, 8))
        label = torch.cat([sample['data_samples'].gt_sem_seg.data for sample in samples])
        label = F.pad(label[:, 4:28], (0, 8), value=255)
        with torch.no_grad():
            output = model.forward_network(model.teacher, image, tap=True)
        features = F.normalize(output.decoder.double(), dim=1)
        label = resize_nearest(label, features.shape[2:])
        for c in label.unique().tolist():
            if c < len(sums):
                sums[c] += features.movedim(1, 0)[:, label == c].sum(dim=1)
    torch.testing.assert_close(
        found['vectors'].double(), F.normalize(sums, dim=1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('ranks', [1, 2, 3, 8])
@pytest.mark.parametrize('batch_size', [2, 4])
@pytest.mark.parametrize('images', [2, 5, 16, 23, 49])
def test_batches_have_each_image_once_and_two_at_least(images, ranks, batch_size, monkeypatch):
    monkeypatch.setattr(_labeled_images, 'get_world_size', lambda: ranks)
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(num_workers=0))
    found = []
    for rank in range(ranks):
        monkeypatch.setattr(_labeled_images, 'get_rank', lambda rank=rank: rank)
        if images < 2 * ranks:
            with pytest.raises(ValueError, match=rf'{images} labeled images over {ranks} process'):
                _labeled_images.own_batches(runner, range(images), batch_size)
            return
        loader = _labeled_images.own_batches(runner, range(images), batch_size)
        found.append([list(batch) for batch in loader.batch_sampler])
    assert sorted(i for batches in found for batch in batches for i in batch) == list(range(images))
    # SyncBN waits for every rank in each batch.
    assert len({len(batches) for batches in found}) == 1
    sizes = {len(batch) for batches in found for batch in batches}
    assert 2 <= min(sizes) <= max(sizes) <= max(batch_size, 3)


def test_size_is_that_of_the_labeled_pipeline():
    def dataset(*transforms):
        pipeline = Compose([{'type': 'LoadImageFromFile'}, *transforms])
        return SimpleNamespace(pipeline=pipeline, get_data_info=None)

    crop = {'type': 'RandomCrop', 'crop_size': (24, 32)}
    assert crop_size(dataset({'type': 'RandomFlip', 'prob': 0.5})) is None
    small, large = dataset(crop), dataset(crop, {'type': 'RandomCrop', 'crop_size': (16, 40)})
    assert crop_size(small) == (24, 32)
    joined = SimpleNamespace(datasets=[small, SimpleNamespace(dataset=large)])
    assert crop_size(joined) == (24, 40)


def test_prototypes_of_a_checkpoint_stay(tmp_path):
    runner = train(tmp_path / 'work')
    classifier = runner.model.prototypes
    vectors = F.normalize(torch.rand_like(classifier.vectors), dim=1)
    classifier.start(vectors, torch.ones(len(vectors), dtype=torch.bool))
    PrototypeMeanHook().before_train(runner)
    torch.testing.assert_close(classifier.vectors, vectors)


def test_missing_or_idle_hook_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"DeS4 needs PrototypeMeanHook. Add dict\(type='Proto"):
        train(tmp_path / 'missing', hook=False).train()
    idle = train(tmp_path / 'idle', model__semi_train_cfg__prototype_init='first_batch')
    with pytest.raises(ValueError, match="DeS4 without prototype_init='labeled_set'"):
        idle.train()
