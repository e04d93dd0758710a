"""The first prototypes of DeS4 as means over all labelled images."""

import pytest
import torch
import torch.nn.functional as F
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine import PrototypeMeanHook
from mmseg_semi.functional.parts import resize_nearest


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
    runner = train(tmp_path / 'work')
    found = {}

    def stop(model):
        found['vectors'] = model.prototypes.vectors.clone()
        raise Stop

    model = runner.model
    model.train_step = lambda *args, **kwargs: stop(model)
    with pytest.raises(Stop):
        runner.train()
    sums = torch.zeros_like(found['vectors'], dtype=torch.float64)
    for index in range(len(runner.train_dataloader.dataset.labeled)):
        dataset = runner.train_dataloader.dataset.labeled
        dataset.pipeline.transforms = [
            t for t in dataset.pipeline.transforms if type(t).__name__.startswith(('Load', 'Pack'))
        ]
        sample = dataset[index]
        image = model.data_preprocessor({'inputs': [sample['inputs']], 'data_samples': None}, False)
        with torch.no_grad():
            output = model.forward_network(model.teacher.eval(), image['inputs'], tap=True)
        features = F.normalize(output.decoder.double(), dim=1)[0]
        label = sample['data_samples'].gt_sem_seg.data
        label = resize_nearest(label, features.shape[1:])[0]
        for c in label.unique().tolist():
            if c < len(sums):
                sums[c] += features[:, label == c].sum(dim=1)
    torch.testing.assert_close(
        found['vectors'].double(), F.normalize(sums, dim=1), rtol=1e-4, atol=1e-5
    )


def test_prototypes_of_a_checkpoint_stay(tmp_path):
    runner = train(tmp_path / 'work')
    classifier = runner.model.prototypes
    vectors = F.normalize(torch.rand_like(classifier.vectors), dim=1)
    classifier.start(vectors, torch.ones(len(vectors), dtype=torch.bool))
    PrototypeMeanHook().before_train(runner)
    torch.testing.assert_close(classifier.vectors, vectors)


def test_missing_or_idle_hook_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"DeS4 needs PrototypeMeanHook: add dict\(type='Proto"):
        train(tmp_path / 'missing', hook=False).train()
    idle = train(tmp_path / 'idle', model__semi_train_cfg__prototype_init='first_batch')
    with pytest.raises(ValueError, match="a DeS4 without prototype_init='labeled_set'"):
        idle.train()
