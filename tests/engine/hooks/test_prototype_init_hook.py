"""The pass over the labeled images: what it clusters, once, and the same for any number of ranks."""

import pytest
import torch
import torch.nn.functional as F
from processes import TOOLS, run_tool
from tiny_run import NUM_LABELED, build_runner, dump, tiny_config

from mmseg_semi.datasets import unaugmented
from mmseg_semi.engine.hooks.prototype_init_hook import PrototypeInitHook, _Sample
from mmseg_semi.functional.prototypes import cluster_centers
from mmseg_semi.functional.resizing import resize_nearest


def esl(work_dir, **changes):
    settings = {'train_cfg__max_iters': 2, 'train_cfg__val_interval': 10, **changes}
    return tiny_config(work_dir, 'ESL', **settings)


class Recorder:
    """Keeps the prototypes as the pass left them, before the first step moves them."""

    def __init__(self, monkeypatch):
        self.vectors = []
        original = PrototypeInitHook.before_train_iter

        def keep(hook, runner, *args, **kwargs):
            original(hook, runner, *args, **kwargs)
            prototypes = runner.model.contrast.prototypes
            self.vectors.append((prototypes.vectors.clone(), prototypes.valid.clone()))

        monkeypatch.setattr(PrototypeInitHook, 'before_train_iter', keep)


def expected_prototypes(runner, num_parts=2):
    """Centers of all places of each class in the unaugmented images."""
    model, dataset = runner.model, unaugmented(runner.train_dataloader.dataset.labeled)
    by_class = {c: [] for c in range(model.num_classes)}
    for index in range(len(dataset)):
        sample = dataset[index]
        sample = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
        data = model.data_preprocessor(sample, False)
        features = F.normalize(model.encode(data['inputs']), dim=1)
        label = resize_nearest(data['data_samples'][0].gt_sem_seg.data, features.shape[2:])
        for c in by_class:
            by_class[c].append(features.movedim(1, -1)[label == c])
    return {c: torch.cat(rows) for c, rows in by_class.items()}


def test_prototypes_are_the_centers_of_all_labeled_places(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    runner = build_runner(esl(tmp_path, custom_hooks__4__max_pixels=10000))
    monkeypatch.setattr(runner.model, 'update_teacher', lambda *_: None)
    runner.train()
    vectors, valid = recorder.vectors[0]
    # The teacher was kept as it was when the pass was made.
    for c, rows in expected_prototypes(runner).items():
        centers = cluster_centers(rows, 2)
        assert valid[c].sum() == len(centers)
        if len(rows) <= 2:
            torch.testing.assert_close(vectors[c, : len(centers)], centers)
            continue
        # Lloyd's algorithm ends where each center is the mean of what is nearest to it.
        nearest = torch.cdist(rows, vectors[c, : len(centers)]).argmin(dim=1)
        means = torch.stack([rows[nearest == k].mean(dim=0) for k in range(len(centers))])
        torch.testing.assert_close(vectors[c, : len(centers)], means, rtol=1e-3, atol=1e-4)
    assert runner.model.contrast.prototypes.ready
    assert valid.any(dim=1).sum() >= 4


def test_the_sample_is_seeded_and_limited(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    for name, changes in {
        'first': dict(custom_hooks__4__max_pixels=3),
        'again': dict(custom_hooks__4__max_pixels=3),
        'seed': dict(custom_hooks__4__max_pixels=3, custom_hooks__4__seed=5),
    }.items():
        build_runner(esl(tmp_path / name, train_cfg__max_iters=1, **changes)).train()
    first, again, seed = (vectors for vectors, _ in recorder.vectors)
    assert torch.equal(first, again)
    assert not torch.equal(first, seed)


def test_pass_is_made_once_and_draws_nothing(tmp_path, monkeypatch):
    calls = []
    collect = PrototypeInitHook._collect

    def watched(hook, runner, *args):
        before = torch.get_rng_state()
        samples = collect(hook, runner, *args)
        assert torch.equal(torch.get_rng_state(), before)
        calls.append(runner.iter)
        return samples

    monkeypatch.setattr(PrototypeInitHook, '_collect', watched)
    first = build_runner(esl(tmp_path / 'first', train_cfg__max_iters=5))
    first.train()
    assert calls == [0]
    later = esl(tmp_path / 'later', model__semi_train_cfg__unlabeled_start=1)
    build_runner(later).train()
    assert calls == [0, 1]
    config = esl(tmp_path / 'resumed', train_cfg__max_iters=7)
    config.load_from, config.resume = str(tmp_path / 'first' / 'iter_5.pth'), True
    resumed = build_runner(config)
    resumed.train()
    assert calls == [0, 1]
    assert resumed.iter == 7


@pytest.mark.slow
def test_ranks_share_the_pass(tmp_path):
    # No step moves anything: what is left is what the pass found.
    still = {
        'model__semi_train_cfg__prototype_decay': 1.0,
        'train_cfg__max_iters': 1,
        'default_hooks__checkpoint__interval': 1,
        'workers': 1,
    }
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        config = dump(esl(folder / 'work', **still), folder / 'config.py')
        result = run_tool(TOOLS / 'train.py', config, cwd=folder, ranks=ranks)
        assert result.code == 0, result.output
        assert f'Reading {NUM_LABELED} labeled images once' in result.output
        checkpoint = torch.load(folder / 'work' / 'iter_1.pth', weights_only=False)
        state = checkpoint['state_dict']
        found.append([state[f'contrast.prototypes.{name}'] for name in ('vectors', 'valid')])
    (one, first), (two, second) = found
    known = first & second
    assert known.any(dim=1).sum() >= 4
    torch.testing.assert_close(one[known], two[known])


def test_sample_keeps_the_smallest_keys():
    sample = _Sample(4)
    keys = torch.rand(100, dtype=torch.float64)
    for part in keys.split(7):
        sample.add(part, part[:, None].float())
    kept, features = sample.content()
    assert torch.equal(kept, keys.sort().values[:4])
    assert torch.equal(features[:, 0], kept.float())
    assert _Sample(4).content()[1].shape == (0, 0)


def test_absent_classes_are_named_in_the_log(tmp_path):
    config = esl(tmp_path, train_cfg__max_iters=1)
    config.train_dataloader.dataset.labeled.num_images = 1
    config.train_dataloader.dataset.unlabeled.start = 1
    runner = build_runner(config)
    said = []
    runner.logger.info = lambda text, *_, **__: said.append(text)
    runner.train()
    (line,) = [text for text in said if str(text).startswith('Parts of each class')]
    assert 'The labeled images lack' in line
    absent = (~runner.model.contrast.prototypes.valid.any(dim=1)).sum()
    assert absent < runner.model.num_classes


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'max_pixels': 0}, 'max_pixels must be at least 1, got 0'),
        ({'seed': -1}, 'seed must be at least 0, got -1'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PrototypeInitHook(**settings)


def test_method_without_parts_is_refused(tmp_path):
    config = tiny_config(tmp_path)
    config.custom_hooks.append({'type': 'PrototypeInitHook'})
    with pytest.raises(ValueError, match='does not support IMAS, which has no parts'):
        build_runner(config).train()


def test_method_insists_on_the_hook(tmp_path):
    config = esl(tmp_path)
    config.custom_hooks = [h for h in config.custom_hooks if h.type != 'PrototypeInitHook']
    with pytest.raises(ValueError, match='ESL needs PrototypeInitHook'):
        build_runner(config).train()
    config.model.semi_train_cfg.num_parts = 0
    build_runner(config).train()
