# Reference: arithmetic by hand, and the likelihood itself. Run: pytest tests/lightning_modules/test_preference_maths.py
import math

import pytest
import torch

from lightning_modules.calibration import calibration
from lightning_modules.functional.preference import bradley_terry, dpo, fitted_temperature, outcome


def test_bradley_terry_by_hand():
    # margin ln 3: P(first) = 3/4, so -log 3/4 where it wins and -log 1/4 where the second does; a tie counts nothing
    margins = torch.full((3, 1), math.log(3.0), requires_grad=True)
    losses = bradley_terry(margins, torch.tensor([[1.0], [-1.0], [0.0]]))
    torch.testing.assert_close(losses[:, 0], torch.tensor([math.log(4 / 3), math.log(4.0), 0.0]))
    losses.sum().backward()
    # dL/dm = -v σ(-v m)
    torch.testing.assert_close(margins.grad[:, 0], torch.tensor([-0.25, 0.75, 0.0]))


def test_swapped_answers_have_the_same_loss():
    draw = torch.Generator().manual_seed(0)
    margins, verdicts = torch.randn(50, 6, generator=draw) * 3, torch.randint(-1, 2, (50, 6), generator=draw).float()
    torch.testing.assert_close(bradley_terry(margins, verdicts), bradley_terry(-margins, -verdicts))
    assert bool(bradley_terry(torch.tensor([[1e4, -1e4]]), torch.tensor([[1.0, -1.0]])).eq(0).all())
    assert bool(bradley_terry(torch.tensor([[1e4]]), torch.tensor([[-1.0]])).isfinite())


def test_outcome_by_hand():
    # log-odds ln 4: P = 4/5; marked right -log 4/5, wrong -log 1/5, not marked nothing
    logits = torch.full((3, 1), math.log(4.0), requires_grad=True)
    losses = outcome(logits, torch.tensor([[1.0], [0.0], [math.nan]]))
    torch.testing.assert_close(losses[:, 0], torch.tensor([math.log(5 / 4), math.log(5.0), 0.0]))
    losses.sum().backward()
    torch.testing.assert_close(logits.grad[:, 0], torch.tensor([-0.2, 0.8, 0.0]))


def test_dpo_by_hand():
    # at the reference the margin is 0: log 2; β 0.5 and log-ratios 2 and -1 give a margin of 1.5
    zero = torch.zeros(1)
    torch.testing.assert_close(dpo(zero - 7, zero - 3, zero - 7, zero - 3, 0.1), torch.tensor([math.log(2.0)]))
    found = dpo(zero - 5, zero - 4, zero - 7, zero - 3, 0.5)
    torch.testing.assert_close(found, torch.tensor([math.log1p(math.exp(-1.5))]))
    with pytest.raises(ValueError, match="beta must be above 0, got 0"):
        dpo(zero, zero, zero, zero, 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_fitted_temperature_is_the_likeliest(seed):
    draw = torch.Generator().manual_seed(seed)
    true = 0.5 + 3 * torch.rand((), generator=draw)
    logits = 4 * torch.randn(4000, generator=draw)
    outcomes = (torch.rand(4000, generator=draw) < torch.sigmoid(logits / true)).float()
    found = fitted_temperature(logits, outcomes)
    assert found == pytest.approx(float(true), rel=0.15)
    nats = [
        torch.nn.functional.binary_cross_entropy_with_logits(logits.double() / t, outcomes.double()).item()
        for t in (found / 1.02, found, found * 1.02)
    ]
    assert nats[1] < min(nats[0], nats[2])
    after = calibration(logits, outcomes, found)
    assert after.ece_fitted < 0.03
    assert after.brier_fitted <= after.brier + 1e-9
    assert fitted_temperature(-logits, 1 - outcomes) == pytest.approx(found)


def test_where_all_verdicts_are_right_the_temperature_stays_bounded():
    assert fitted_temperature(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])) == pytest.approx(0.01)
    assert fitted_temperature(torch.tensor([2.0, -1.0]), torch.tensor([0.0, 1.0])) == pytest.approx(100.0)
    with pytest.raises(ValueError, match="no outcome"):
        fitted_temperature(torch.zeros(0), torch.zeros(0))


def test_calibration_by_hand():
    # two at 3/4 of which one comes true, two at 1/4 of which one does: each bin is 1/4 off, and the squares are
    # (1/16 + 9/16) / 2
    logits = torch.tensor([math.log(3.0)] * 2 + [-math.log(3.0)] * 2)
    found = calibration(logits, torch.tensor([1.0, 0.0, 1.0, 0.0]), 1.0)
    assert (found.n, found.accuracy) == (4, 0.5)
    assert found.ece == pytest.approx(0.25)
    assert found.brier == pytest.approx(5 / 16)
    assert found.ece_fitted == found.ece
