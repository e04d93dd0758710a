import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

import mmseg_semi.engine  # noqa: F401  registers the scheduler


def build(lr=0.01, **settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    config = {'type': 'mmseg.FinalPolyLR', 'optimizer': optimizer, 'by_epoch': False, **settings}
    return optimizer, PARAM_SCHEDULERS.build(config)


def rates_of(iterations, lr=0.5, **settings):
    """The rates of so many iterations."""
    optimizer, scheduler = build(lr=lr, power=0.9, **settings)
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return rates


def test_rate_is_that_of_the_last_iteration_of_a_poly_schedule_that_ends_after_it():
    rates = rates_of(20, end=20)
    assert len(set(rates)) == 1
    # MMEngine's is 0 in its own last iteration.
    *poly, last = rates_of(21, type='PolyLR', eta_min=0.0, end=21)
    assert last == 0
    assert rates[0] == pytest.approx(poly[-1])
    assert rates[0] == pytest.approx(rates_of(20, type='PolyLR', eta_min=0.0, end=20)[-2], rel=0.05)


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
