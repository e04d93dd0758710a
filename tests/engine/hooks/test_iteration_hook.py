"""The method knows the time, whatever the run resumes from."""

from types import SimpleNamespace

import pytest
from mmseg.registry import MODELS
from tiny import build_plain, tiny_segmentor

from mmseg_semi.engine import IterationHook, MeanTeacherHook


def test_model_is_told_the_iteration_that_starts():
    model = MODELS.build({'type': 'FixMatch', 'segmentor': tiny_segmentor('GN')})
    runner, hook = SimpleNamespace(model=model, iter=7), IterationHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert model.iteration == 7
    # What FixMatch needs, the hook of a teacher does, too.
    assert isinstance(MeanTeacherHook(), IterationHook)


def test_plain_model_is_refused():
    runner = SimpleNamespace(model=build_plain(), iter=0)
    with pytest.raises(
        ValueError, match='IterationHook found a EncoderDecoder, which is no semi-superv'
    ):
        IterationHook().before_train(runner)
