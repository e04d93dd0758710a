import pytest
from mmseg.utils import register_all_modules

import mmseg_semi.datasets  # noqa: F401  registers what the configs name


@pytest.fixture(autouse=True)
def _scope():
    register_all_modules(init_default_scope=True)
