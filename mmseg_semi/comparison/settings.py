"""A short name for everything that a training's result depends on, but for its seed."""

from __future__ import annotations

import hashlib
import json

from mmengine.config import Config

from .configs import drawn_seed_keys

#: What says where files lie, or is told apart by itself.
_PLACES = ('data_root', 'work_dir', 'filename')


def settings_hash(cfg: Config) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a resolved config.

    Seeds (``randomness.seed``, those of synthetic images) and places (``data_root``, ``work_dir``) do not
    change it, so that the seeds of one setting share it and another machine finds the same.
    """
    cfg = cfg.copy()
    seeds = ['randomness.seed', *drawn_seed_keys(cfg)]
    cfg.merge_from_dict(dict.fromkeys(seeds))
    text = json.dumps(_without_places(cfg.to_dict()), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_places(value):
    if isinstance(value, dict):
        return {
            str(key): _without_places(item) for key, item in value.items() if key not in _PLACES
        }
    if isinstance(value, (list, tuple)):
        return [_without_places(item) for item in value]
    return value
