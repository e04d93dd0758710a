"""A fingerprint of all settings that a training's result depends on, except for the seed."""

from __future__ import annotations

import hashlib
import json

from mmengine.config import Config

from .configs import drawn_seed_keys

#: Settings of paths, and settings that are compared separately.
_PLACES = ('data_root', 'work_dir', 'filename')


def settings_hash(cfg: Config) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of a resolved config.

    It does not depend on seeds (``randomness.seed``, seeds of synthetic images) and paths (``data_root``,
    ``work_dir``), so that all seeds and machines get the same fingerprint.
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
