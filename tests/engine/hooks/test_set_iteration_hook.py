from types import SimpleNamespace

from mmseg.registry import HOOKS, MODELS
from tiny import tiny_segmentor

import mmseg_semi.engine  # noqa: F401  registers the hooks


def test_method_knows_the_iteration_that_starts():
    model = MODELS.build({'type': 'UniMatch', 'segmentor': tiny_segmentor()})
    hook = HOOKS.build({'type': 'SetIterationHook'})
    assert model.iteration == 0
    # A resumed run counts on, whatever the number of the batch.
    hook.before_train_iter(SimpleNamespace(model=model, iter=7), 0)
    assert model.iteration == 7
