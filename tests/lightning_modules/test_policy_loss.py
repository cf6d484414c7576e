# Reference: arithmetic by hand and numerical integration. Run: pytest tests/lightning_modules/test_policy_loss.py
import math

import pytest
import torch

from lightning_modules.functional import policy_loss
from lightning_modules.functional.reductions import REDUCTIONS, Denominators, masked, token_mean


def test_clipped_surrogate_by_hand():
    # ratios 0.5, 1, 2 with bounds 0.2 and 0.3
    # A = +1: min(0.5, 0.8) = 0.5, min(1, 1) = 1, min(2, 1.3) = 1.3
    # A = -1: min(-0.5, -0.8) = -0.8, -1, min(-2, -1.3) = -2
    log_ratio = torch.tensor([[0.5, 1.0, 2.0]]).log().repeat(2, 1)
    found = policy_loss.clipped_surrogate(log_ratio, torch.tensor([1.0, -1.0]), clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(found, torch.tensor([[-0.5, -1.0, -1.3], [0.8, 1.0, 2.0]]))


def test_clipped_tokens_have_no_gradient():
    log_ratio = torch.tensor([[0.5, 1.0, 2.0]]).log().requires_grad_()
    policy_loss.clipped_surrogate(log_ratio, torch.tensor([1.0]), clip_low=0.2, clip_high=0.3).sum().backward()
    # d(-rho A)/d log rho = -rho where not clipped; the third is clipped
    torch.testing.assert_close(log_ratio.grad, torch.tensor([[-0.5, -1.0, 0.0]]))


def test_zero_advantage_has_zero_value_and_gradient():
    logps = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ratio = policy_loss.clamped_log_ratio(logps, logps.detach() + 0.5)
    loss = policy_loss.clipped_surrogate(ratio, torch.zeros(3), clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(3, 5))
    assert torch.equal(logps.grad, torch.zeros(3, 5))


def test_kl_estimators_are_zero_at_equality_and_estimate_the_kl():
    logps = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    for estimator in (policy_loss.k1_kl, policy_loss.k2_kl, policy_loss.k3_kl):
        assert torch.equal(estimator(logps, logps.clone()), torch.zeros(4, 6))
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    kl = (p * (p / q).log()).sum()
    for estimator in (policy_loss.k1_kl, policy_loss.k3_kl):  # unbiased: the expectation under p is the KL
        expected = (p * estimator(p.log()[None], q.log()[None])[0]).sum()
        torch.testing.assert_close(expected, kl)
    logp = torch.linspace(-30, 30, 61)[None]
    assert bool((policy_loss.k3_kl(logp, torch.zeros(1, 61)) >= 0).all())


def test_far_log_ratios_stay_finite():
    far = torch.tensor([[-1e4, 1e4]])
    for value in (
        policy_loss.k3_kl(far, torch.zeros(1, 2)),
        policy_loss.clipped_surrogate(
            policy_loss.clamped_log_ratio(far, torch.zeros(1, 2)), torch.tensor([-1.0]), clip_low=0.2, clip_high=0.2
        ),
    ):
        assert bool(torch.isfinite(value).all())


def test_sequence_ratio_by_hand():
    # row of log-ratios 0.1, 0.3 and padding: mean 0.2 on every token; gradient is each token's own
    log_ratio = torch.tensor([[0.1, 0.3, 9.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    found = policy_loss.sequence_log_ratio(log_ratio, mask)
    torch.testing.assert_close(found[0, :2], torch.tensor([0.2, 0.2]))
    found[0, 0].backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([[1.0, 0.0, 0.0]]))


def test_reductions_by_hand():
    loss = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    sizes = Denominators.of(mask.sum(1), max_tokens=5)
    expected = {"token_mean": 16 / 4, "sequence_mean": (2 + 10) / 2, "constant": 16 / (2 * 5)}
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        name: float(reduce(loss, mask, sizes)) for name, reduce in REDUCTIONS.items()
    }


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_micro_batches_add_up(name):
    generator = torch.Generator().manual_seed(2)
    loss, lengths = torch.randn(7, 6, generator=generator), torch.randint(1, 7, (7,), generator=generator)
    mask = torch.arange(6)[None] < lengths[:, None]
    sizes = Denominators.of(lengths, max_tokens=6)
    whole = REDUCTIONS[name](loss, mask, sizes)
    parts = sum(REDUCTIONS[name](loss[rows], mask[rows], sizes) for rows in ([0], [1, 2, 3], [4, 5, 6]))
    torch.testing.assert_close(parts, whole)


def test_padding_cannot_pass_infinity_on():
    loss = torch.tensor([[1.0, math.inf], [2.0, math.nan]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, False]])
    value = token_mean(loss, mask, Denominators(2, 2, 2))
    value.backward()
    assert value.item() == 1.5
    assert bool(torch.isfinite(loss.grad).all())
    assert torch.equal(masked(loss, mask).detach(), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
