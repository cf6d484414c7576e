# Reference: arithmetic by hand, identities of the formula, GRPO itself. Run: pytest <this file>
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional.advantages import (
    group_relative_advantages,
    guideline_based_advantages,
    guideline_weights,
)

INF = math.inf


def uniform(k: int) -> torch.Tensor:
    return torch.ones(k)


def rewards_of(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    # mu = (1 + 0 + 1 + 0) / 4 = 1/2; mu_1 = 1, mu_2 = 0 for rewards [[1, 1], [0, 0]]
    # sigma = sqrt(4 * 0.25 / 3) = 0.57735; lambda 3: bracket = (1 - 0.5) + 2 * 0.5 = 1.5 for guideline 1
    rewards = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    found = guideline_based_advantages(rewards, lambda_=3, tau=INF, prior=uniform(2), eps=0.0)
    torch.testing.assert_close(found, torch.tensor([[[1.5, 1.5], [-1.5, -1.5]]]) / math.sqrt(1 / 3))


def test_weights_by_hand():
    # mu = (1, 0), tau = 1, prior (1, 3): unnormalised e^1 * 1 and e^0 * 3, times K = 2
    weights = guideline_weights(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, 3.0]), 1.0)
    expected = 2 * torch.tensor([[math.e, 3.0]]) / (math.e + 3)
    torch.testing.assert_close(weights, expected)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_lambda_one_and_tau_infinite_is_grpo_to_the_last_bit(seed, k, g, questions, scale):
    if k * g < 2:
        return
    for dtype in (torch.float32, torch.float64):
        rewards = rewards_of(seed, (questions, k, g)).to(dtype)
        ours = guideline_based_advantages(rewards, lambda_=1, tau=INF, prior=uniform(k), scale_by_std=scale)
        grpo = group_relative_advantages(rewards.reshape(questions, k * g), scale_by_std=scale)
        assert torch.equal(ours.reshape(questions, k * g), grpo)


def test_grpo_formula_itself():
    rewards = rewards_of(1, (3, 8))
    mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True)
    torch.testing.assert_close(group_relative_advantages(rewards, eps=1e-4), (rewards - mean) / (std + 1e-4))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(1e-3, 1e3))
def test_weights_sum_to_k(seed, k, tau):
    prior = rewards_of(seed + 1, (k,)) + 0.1
    weights = guideline_weights(rewards_of(seed, (4, k)), prior, tau)
    torch.testing.assert_close(weights.sum(1), torch.full((4,), float(k), dtype=torch.float64))
    assert bool((weights >= 0).all())


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7, 49])
def test_uniform_trust_is_exactly_one(k):
    assert torch.equal(guideline_weights(torch.rand(3, k), uniform(k), INF), torch.ones(3, k))


def test_tau_zero_is_the_limit_of_small_tau():
    means = torch.tensor([[0.2, 0.9, 0.9, 0.1]], dtype=torch.float64)
    prior = torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(guideline_weights(means, prior, 0.0), guideline_weights(means, prior, 1e-6))
    torch.testing.assert_close(guideline_weights(means, prior, 0.0), torch.tensor([[0.0, 1.0, 3.0, 0.0]]).double())


def test_sums_over_the_group():
    rewards = rewards_of(3, (5, 4, 3))
    prior = torch.tensor([1.0, 2.0, 0.5, 1.0])
    for lambda_ in (0.0, 0.5, 1.0, 4.0):  # no weights: zero over the group for every lambda
        found = guideline_based_advantages(rewards, lambda_=lambda_, tau=INF, prior=uniform(4))
        torch.testing.assert_close(found.sum((1, 2)), torch.zeros(5).double(), atol=1e-12, rtol=0)
    for tau in (0.0, 0.1, INF):  # lambda 0: zero within every guideline whatever the weights
        found = guideline_based_advantages(rewards, lambda_=0, tau=tau, prior=prior)
        torch.testing.assert_close(found.sum(2), torch.zeros(5, 4).double(), atol=1e-12, rtol=0)
    weighted = guideline_based_advantages(rewards, lambda_=1, tau=0.1, prior=uniform(4), scale_by_std=False)
    means = rewards.mean(2)
    expected = (3 * guideline_weights(means, uniform(4).double(), 0.1) * (means - rewards.mean((1, 2))[:, None])).sum(1)
    torch.testing.assert_close(weighted.sum((1, 2)), expected)  # the docstring's formula: it does not vanish
    assert bool((expected > 0).all())


@pytest.mark.parametrize("value", [0.0, 0.7, 1.3, 1e-3])
@pytest.mark.parametrize("tau", [0.0, 0.05, INF])
def test_equal_rewards_give_exactly_zero(value, tau):
    rewards = torch.full((2, 4, 2), value)
    assert torch.equal(
        guideline_based_advantages(rewards, lambda_=2.0, tau=tau, prior=uniform(4)), torch.zeros(2, 4, 2)
    )
    assert torch.equal(group_relative_advantages(rewards.flatten(1)), torch.zeros(2, 8))


def test_limits_of_g():
    rewards = rewards_of(4, (3, 4, 1))
    stratified = guideline_based_advantages(rewards, lambda_=0, tau=INF, prior=uniform(4))
    assert torch.equal(stratified, torch.zeros(3, 4, 1).double())  # each rollout is its own baseline
    alone = rewards_of(5, (3, 1, 6))  # one guideline: lambda and tau have nothing to act on
    grpo = group_relative_advantages(alone[:, 0])
    for lambda_, tau in ((0.0, INF), (3.0, 0.1)):
        found = guideline_based_advantages(alone, lambda_=lambda_, tau=tau, prior=uniform(1))
        assert torch.equal(found[:, 0], grpo)


def test_questions_do_not_mix_and_rewards_are_left_alone():
    rewards = rewards_of(6, (4, 3, 2))
    before = rewards.clone()
    whole = guideline_based_advantages(rewards, lambda_=2, tau=0.3, prior=uniform(3))
    parts = [guideline_based_advantages(r[None], lambda_=2, tau=0.3, prior=uniform(3)) for r in rewards]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-12, rtol=1e-12)
    assert torch.equal(rewards, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambda_": -1.0}, "lambda_"),
        ({"tau": -0.1}, "tau"),
        ({"tau": math.nan}, "tau"),
        ({"prior": torch.tensor([1.0, 0.0])}, "prior"),
        ({"rewards": torch.tensor([[[1.0, math.nan], [0.0, 1.0]]])}, "finite"),
        ({"rewards": torch.ones(1, 1, 1), "prior": uniform(1)}, "at least 2"),
    ],
)
def test_bad_values_are_named(change, message):
    arguments = {"rewards": torch.rand(1, 2, 2), "lambda_": 1.0, "tau": INF, "prior": uniform(2)} | change
    with pytest.raises(ValueError, match=message):
        guideline_based_advantages(arguments.pop("rewards"), **arguments)
