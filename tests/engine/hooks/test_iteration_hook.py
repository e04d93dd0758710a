"""A hook of earlier configs still trains, and says that it can go."""

import logging
from types import SimpleNamespace

from mmseg_semi.engine import IterationHook

LOGGER = logging.getLogger('test_iteration_hook')


def test_it_does_nothing_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, LOGGER.name):
        IterationHook().before_train(SimpleNamespace(logger=LOGGER))
    assert 'Remove it from custom_hooks' in caplog.text
