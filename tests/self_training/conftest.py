"""A config, the checkpoints of a training that never was, and images of two sizes."""

import pytest
import trained
from mmseg.utils import register_all_modules

import mmseg_semi.self_training  # noqa: F401  registers what the configs name

#: Two sizes in turns, so that batches are not the list cut in pieces; 'sub/u0' comes first in it.
SIZES = [(24, 32), (24, 32), (32, 24), (24, 32), (32, 24), (24, 32), (24, 32)]


@pytest.fixture(autouse=True)
def _scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture(scope='session')
def cfg():
    return trained.config()


@pytest.fixture(scope='session')
def checkpoints(cfg, tmp_path_factory):
    """Paths of three checkpoints."""
    register_all_modules(init_default_scope=True)
    folder = tmp_path_factory.mktemp('checkpoints')
    return [trained.checkpoint(cfg, folder / f'iter_{k}.pth', seed=k) for k in (1, 2, 3)]


@pytest.fixture(scope='session')
def pool(tmp_path_factory):
    """Config of seven images, ids ``sub/u0`` and ``u1`` to ``u6``."""
    return trained.write_pool(tmp_path_factory.mktemp('pool'), SIZES)
