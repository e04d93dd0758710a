"""What the tests of comparisons share."""

import gc

import pytest


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """mmengine's datasets collect garbage twice each, walking through all that the tests have imported."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)
