# Reference: arithmetic by hand, identities of the formula, GRPO itself. Run: pytest <this file>
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional.advantages import (
    group_relative_advantages,
    guideline_based_advantages,
    guideline_weights,
    leave_one_out_advantages,
    maximum_likelihood_advantages,
    within_guideline,
)

INF = math.inf


def uniform(k: int) -> torch.Tensor:
    return torch.ones(k)


def rewards_of(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(*counts: int) -> torch.Tensor:
    """The guideline of each place: counts[k] places of guideline k, one after the other."""
    return torch.tensor([k for k, count in enumerate(counts) for _ in range(count)])


def compared(correct: torch.Tensor, places: torch.Tensor, **options) -> torch.Tensor:
    """Without adherence."""
    options = {"lambda_": 1.0, "tau": INF, "alpha": 0.0, "prior": uniform(int(places.max()) + 1)} | options
    return guideline_based_advantages(correct, torch.full_like(correct, math.nan), places, **options)


def test_by_hand():
    # mu = (1 + 0 + 1 + 0) / 4 = 1/2; mu_1 = 1, mu_2 = 0 for rewards 1, 1 | 0, 0
    # sigma = sqrt(4 * 0.25 / 3) = 0.57735; lambda 3: bracket = (1 - 0.5) + 2 * 0.5 = 1.5 for guideline 1
    found = compared(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), spread(2, 2), lambda_=3, eps=0.0)
    torch.testing.assert_close(found, torch.tensor([[1.5, 1.5, -1.5, -1.5]]) / math.sqrt(1 / 3))


def test_guidelines_of_different_size_by_hand():
    # rewards 1 | 0, 0, 1: mu = 1/2, mu_1 = 1, mu_2 = 1/3; lambda 2 adds mu_k - mu once: 1/2 and -1/6
    found = compared(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), spread(1, 3), lambda_=2, scale_by_std=False)
    torch.testing.assert_close(found, torch.tensor([[1.0, -2 / 3, -2 / 3, 1 / 3]]))


def test_adherence_by_hand():
    # guideline 0 has none; guideline 1 has 0.2 and 0.6: centred -0.2, 0.2, deviation sqrt(0.08) = 0.28284
    adherence = torch.tensor([[math.nan, math.nan, 0.2, 0.6]], dtype=torch.float64)
    found = within_guideline(adherence, spread(2, 2), eps=0.0)
    expected = torch.tensor([[0.0, 0.0, -1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    torch.testing.assert_close(found.nan_to_num(nan=0.0), expected)
    correct = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    both = guideline_based_advantages(
        correct, adherence, spread(2, 2), lambda_=1, tau=INF, alpha=0.5, prior=uniform(2), eps=1e-9
    )
    plain = compared(correct, spread(2, 2), eps=1e-9)
    torch.testing.assert_close(both - plain, 0.5 * expected, atol=1e-6, rtol=1e-6)


def test_adherence_can_neither_outbid_rightness_nor_be_made_large_by_a_small_spread():
    # A right answer without adherence beside wrong ones: scaling every adherence changes nothing, and with alpha 0.1
    # the largest possible adherence term of four rollouts, 1.5 * 0.1, stays below the difference that right makes.
    correct = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    options = {"lambda_": 1.1, "tau": INF, "alpha": 0.1, "prior": uniform(1)}
    small = torch.tensor([[0.0, 0.0, 0.0, 0.01]], dtype=torch.float64)
    a, b = (guideline_based_advantages(correct, s, spread(4), **options, eps=1e-9) for s in (small, small * 100))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert bool((a[:, 0] > a[:, 1:].amax()).all())


def test_leave_one_out_by_hand():
    # 1 against the mean of 0 and 2, 0 against 1.5, 2 against 0.5
    found = leave_one_out_advantages(torch.tensor([[1.0, 0.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.5, 1.5]]))


def test_maximum_likelihood_by_hand():
    # one of four right: mean 1/4, so (1 - 1/4) / (1/4) = 3 and -1; nobody right: 0; all right: 0
    found = maximum_likelihood_advantages(torch.tensor([[1.0, 0, 0, 0], [0.0, 0, 0, 0], [1.0, 1, 1, 1]]))
    torch.testing.assert_close(found, torch.tensor([[3.0, -1, -1, -1], [0.0, 0, 0, 0], [0.0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="at least 0"):
        maximum_likelihood_advantages(torch.tensor([[1.0, -0.5]]))


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
        rewards = rewards_of(seed, (questions, k * g)).to(dtype)
        ours = compared(rewards, spread(*[g] * k), scale_by_std=scale)
        assert torch.equal(ours, group_relative_advantages(rewards, scale_by_std=scale))


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


@settings(deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_sums_over_the_group(seed, counts):
    places, k = spread(*counts), len(counts)
    rewards = rewards_of(seed, (5, sum(counts)))
    for lambda_ in (0.0, 0.5, 1.0, 4.0):  # no weights: zero over the group for every lambda
        found = compared(rewards, places, lambda_=lambda_)
        torch.testing.assert_close(found.sum(1), torch.zeros(5).double(), atol=1e-9, rtol=0)
    member = torch.nn.functional.one_hot(places, k).double()
    prior = rewards_of(seed + 1, (k,)) + 0.1
    for tau in (0.0, 0.1, INF):  # lambda 0: zero within every guideline whatever the weights
        found = compared(rewards, places, lambda_=0, tau=tau, prior=prior)
        torch.testing.assert_close(found @ member, torch.zeros(5, k).double(), atol=1e-9, rtol=0)
    weighted = compared(rewards, places, lambda_=1, tau=0.1, scale_by_std=False)
    means = (rewards @ member) / member.sum(0)
    trust = guideline_weights(means, uniform(k).double(), 0.1)
    expected = (member.sum(0) * trust * (means - rewards.mean(1, keepdim=True))).sum(1)
    torch.testing.assert_close(weighted.sum(1), expected)  # the docstring's formula


@pytest.mark.parametrize("value", [0.0, 0.7, 1.3, 1e-3])
@pytest.mark.parametrize("tau", [0.0, 0.05, INF])
def test_equal_rewards_give_exactly_zero(value, tau):
    rewards = torch.full((2, 8), value)
    for lambda_ in (0.0, 2.0):
        found = guideline_based_advantages(
            rewards, rewards, spread(2, 3, 3), lambda_=lambda_, tau=tau, alpha=0.3, prior=uniform(3)
        )
        assert torch.count_nonzero(found) == 0
    for formula in (group_relative_advantages, leave_one_out_advantages, maximum_likelihood_advantages):
        assert torch.count_nonzero(formula(rewards)) == 0


def test_limits_of_g():
    rewards = rewards_of(4, (3, 4))
    stratified = compared(rewards, spread(1, 1, 1, 1), lambda_=0)
    assert torch.count_nonzero(stratified) == 0  # each rollout is its own baseline
    # equal rewards under each guideline, unequal between: lambda 0 sees nothing, exactly
    two = torch.tensor([[0.7, 0.7, 0.7, 0.1, 0.1, 0.1]])
    assert torch.count_nonzero(compared(two, spread(3, 3), lambda_=0)) == 0
    alone = rewards_of(5, (3, 6))  # one guideline: lambda and tau have nothing to act on
    for lambda_, tau in ((0.0, INF), (3.0, 0.1)):
        assert torch.equal(compared(alone, spread(6), lambda_=lambda_, tau=tau), group_relative_advantages(alone))


def test_questions_do_not_mix_and_rewards_are_left_alone():
    rewards = rewards_of(6, (4, 6))
    before = rewards.clone()
    advantage = partial(compared, places=spread(2, 1, 3), lambda_=2, tau=0.3)
    whole = advantage(rewards)
    torch.testing.assert_close(whole, torch.cat([advantage(r[None]) for r in rewards]), atol=1e-12, rtol=1e-12)
    assert torch.equal(rewards, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambda_": -1.0}, "lambda_"),
        ({"alpha": -1.0}, "alpha"),
        ({"tau": -0.1}, "tau"),
        ({"tau": math.nan}, "tau"),
        ({"prior": torch.tensor([1.0, 0.0])}, "prior"),
        ({"correct": torch.tensor([[1.0, math.nan, 0.0, 1.0]])}, "finite"),
        ({"correct": torch.ones(1, 1), "places": spread(1), "prior": uniform(1)}, "at least 2"),
    ],
)
def test_bad_values_are_named(change, message):
    arguments = {"correct": torch.rand(1, 4), "places": spread(2, 2)} | change
    with pytest.raises(ValueError, match=message):
        compared(arguments.pop("correct"), arguments.pop("places"), **arguments)
