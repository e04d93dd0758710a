"""Configs, checkpoints and images for tests of what a trained network predicts; nothing is trained."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmseg.registry import MODELS
from tiny import tiny_segmentor

CLASSES = ('ground', 'sky', 'tree', 'car')
PALETTE = [[90, 60, 30], [90, 160, 250], [30, 140, 40], [200, 30, 30]]
LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')


def config(pipeline: list | None = None, method: bool = False, **network) -> Config:
    """A config of a network of four classes with random weights, as `checkpoint` saves them."""
    # Large weights in the classifier make the untrained network confident, in several classes.
    classifier = dict(type='Normal', std=2.0, override=dict(name='conv_seg'))
    model = tiny_segmentor(init_cfg=classifier, **network)
    model['data_preprocessor'].update(size=(32, 32))
    if method:
        model = dict(type='IMAS', segmentor=model)
    pipeline = [LOAD, dict(type='LoadAnnotations'), PACK] if pipeline is None else pipeline
    return Config(
        dict(
            default_scope='mmseg',
            model=model,
            test_dataloader=dict(
                dataset=dict(
                    type='BaseSegDataset',
                    metainfo=dict(classes=CLASSES, palette=PALETTE),
                    pipeline=pipeline,
                )
            ),
        )
    )


def build(cfg: Config, seed: int) -> torch.nn.Module:
    """The model of a config, its weights and statistics drawn from ``seed``."""
    if not MMLogger.check_instance_created('quiet'):  # init_weights reports every layer
        MMLogger.get_instance('quiet', log_level=logging.WARNING)
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
    return model.eval()


def checkpoint(cfg: Config, path: Path, seed: int = 0, meta: dict | None = None) -> str:
    """Save what `build` makes, as MMEngine saves it; returns the path."""
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=PALETTE)) if meta is None else meta
    torch.save(dict(state_dict=build(cfg, seed).state_dict(), meta=meta), path)
    return str(path)


def texture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth random image, uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_pool(folder: Path, sizes: list[tuple[int, int]]) -> dict:
    """Write a PNG image of each (height, width), ``sub/u0``, ``u1``, ...; returns their config."""
    for i, (height, width) in enumerate(sizes):
        path = folder / ('sub' if i == 0 else '') / f'u{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), texture(i, height, width))
    # Serializing would collect garbage twice, which takes longer than the test.
    return dict(type='UnlabeledDataset', img_dir=str(folder), serialize_data=False)
