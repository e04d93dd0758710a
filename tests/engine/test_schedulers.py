import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

import mmseg_semi.engine  # noqa: F401  registers the scheduler


def build(lr=0.01, **settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    config = {'type': 'mmseg.FinalPolyLR', 'optimizer': optimizer, 'by_epoch': False, **settings}
    return optimizer, PARAM_SCHEDULERS.build(config)


def test_rate_is_the_last_one_of_a_poly_schedule_all_the_time():
    optimizer, scheduler = build(lr=0.5, end=20, power=0.9)
    last = 0.5 * (1 - 19 / 20) ** 0.9
    for _ in range(20):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(last)
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]['lr'] == pytest.approx(last)


@pytest.mark.parametrize(
    ('lr', 'iterations', 'printed'),
    [(0.01, 34 * (9259 // 8), 7.3e-7), (0.02, 137 * (2603 // 8), 1.3e-6)],
)
def test_rates_of_the_paper(lr, iterations, printed):
    optimizer, _ = build(lr=lr, end=iterations)
    assert optimizer.param_groups[0]['lr'] == pytest.approx(printed, rel=0.03)


def test_state_resumes():
    _, first = build(end=20)
    optimizer, second = build(end=20)
    second.load_state_dict(first.state_dict())
    optimizer.step()
    second.step()
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.01 * 20**-0.9)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match='by_epoch=True, but its rate follows from iterations'):
        build(by_epoch=True, end=20)
    with pytest.raises(ValueError, match='set it to the iterations of the training'):
        build()
