"""The second strong view on its way from the config to the method."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

import mmseg_semi

CONFIGS = Path(mmseg_semi.__file__).parents[1] / 'configs'
VIEWS = ('weak', 'strong', 'strong2')


@pytest.mark.parametrize('method', ['prevmatch', 'unimatch', 'unimatch_v2'])
def test_batch_has_two_strong_views_of_each_weak_one(method):
    init_default_scope('mmseg')
    name = f'{method.replace("_", "-")}_deeplabv3plus_tiny_900iter_shapes-64x64.py'
    cfg = Config.fromfile(CONFIGS / method / name)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    batch = MODELS.build(cfg.model.data_preprocessor)(batch, True)
    inputs, samples = batch['inputs'], batch['data_samples']
    assert set(inputs) == {'labeled', *VIEWS}
    assert {tuple(inputs[view].shape) for view in VIEWS} == {(8, 3, 64, 64)}
    paths = [[sample.img_path for sample in samples[view]] for view in VIEWS]
    assert paths[0] == paths[1] == paths[2]
    for i in range(8):
        masks = [samples[view][i].valid_mask.data for view in VIEWS]
        assert all(torch.equal(mask, masks[0]) for mask in masks)
    # Photometry leaves 8 of 100 views as they are, and is drawn for each on its own.
    for first, second in (('weak', 'strong'), ('weak', 'strong2'), ('strong', 'strong2')):
        same = [torch.equal(*pair) for pair in zip(inputs[first], inputs[second], strict=True)]
        assert sum(same) <= 3
