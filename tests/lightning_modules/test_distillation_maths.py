# Reference: whole distributions in double precision, sums over the vocabulary, and numbers by hand.
# Run: pytest tests/lightning_modules/test_distillation_maths.py
import math

import pytest
import torch
from torch import nn

from lightning_modules.functional.distillation import distribution_kl, log_ratio_reinforce
from lightning_modules.functional.specialty_weights import specialty_weights
from lightning_modules.functional.teacher_gate import taught

BANNED = torch.tensor([0, 4])
NAN = math.nan


def case(learns=False, seed=0, dtype=torch.float64, rows=9):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    head, other = (nn.Linear(6, 11, bias=False, dtype=dtype) for _ in range(2))
    head.weight.data, other.weight.data = drawn(11, 6), drawn(11, 6)
    head.requires_grad_(learns)
    other.requires_grad_(False)
    return head, other, drawn(rows, 6).requires_grad_(), drawn(rows, 6)


def whole(hidden, theirs, head, other, temperature, forward=False):
    """The definition, all places at once, over the tokens that are not banned."""
    keep = [token for token in range(11) if token not in BANNED]
    log_p = (head(hidden)[:, keep].double() / temperature).log_softmax(-1)
    log_q = (other(theirs)[:, keep].double() / temperature).log_softmax(-1)
    if forward:
        log_p, log_q = log_q, log_p
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("learns", [False, True], ids=["frozen head", "head that learns"])
@pytest.mark.parametrize("chunk", [None, 1, 4, 9])
@pytest.mark.parametrize(("temperature", "forward"), [(1.0, False), (0.6, False), (0.6, True)])
def test_chunks_equal_the_whole_in_value_and_gradient(learns, chunk, temperature, forward):
    head, other, hidden, theirs = case(learns)
    how = {"banned": BANNED, "temperature": temperature, "forward": forward, "chunk": chunk}
    kl = distribution_kl(hidden, theirs, head, other, **how)
    expected = whole(hidden, theirs, head, other, temperature, forward)
    torch.testing.assert_close(kl, expected)
    assert float(kl.min()) > 0
    leaves = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    weights = torch.linspace(-1, 1, 9, dtype=torch.float64)
    ours = torch.autograd.grad((kl * weights).sum(), leaves)
    for mine, right in zip(ours, torch.autograd.grad((expected * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("learns", [False, True], ids=["frozen head", "head that learns"])
def test_the_gradient_is_that_of_finite_differences(learns, forward):
    head, other, hidden, theirs = case(learns, rows=4)

    def kl(states):
        how = {"banned": BANNED, "temperature": 0.7, "forward": forward, "chunk": 3}
        return distribution_kl(states, theirs, head, other, **how)

    assert torch.autograd.gradcheck(kl, hidden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_stay_near_the_definition(dtype):
    head, other, hidden, theirs = case(dtype=dtype)
    kl = distribution_kl(hidden, theirs, head, other, banned=BANNED)
    expected = whole(hidden, theirs, head, other, 1.0)
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(kl.double(), expected, **near)
    slopes = [torch.autograd.grad(value.sum(), hidden)[0] for value in (kl, expected)]
    torch.testing.assert_close(*slopes, **near)


def test_a_frozen_head_runs_once_and_never_on_more_than_a_chunk():
    head, other, hidden, theirs = case()
    seen = []
    heads = [
        lambda rows, name=name, of=of: seen.append((name, len(rows))) or of(rows)
        for name, of in (("s", head), ("t", other))
    ]
    distribution_kl(hidden, theirs, *heads, chunk=4).sum().backward()
    assert [n for name, n in seen if name == "s"] == [1, 4, 4, 1]  # the first tells whether the head learns
    assert [n for name, n in seen if name == "t"] == [4, 4, 1]


def test_equal_distributions_are_at_no_distance_and_nothing_gives_nothing():
    head, _, hidden, _ = case()
    kl = distribution_kl(hidden, hidden.detach(), head, head, banned=BANNED)
    assert float(kl.detach().abs().max()) < 1e-14
    assert float(torch.autograd.grad(kl.sum(), hidden)[0].abs().max()) < 1e-14
    assert distribution_kl(hidden[:0], hidden[:0], head, head).shape == (0,)


def test_reinforce_has_the_gradient_of_the_kl_in_the_mean():
    # the mean over the student's own samples, as a sum over the vocabulary weighted by the student's probabilities
    generator = torch.Generator().manual_seed(3)
    logits, others = (torch.randn(5, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    log_p, log_q = logits.log_softmax(-1), others.log_softmax(-1)
    sampled = log_p.exp().detach() * log_ratio_reinforce(log_p, log_q, math.inf)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    ours, right = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (sampled.sum(), kl))
    torch.testing.assert_close(ours, right)


def test_reinforce_by_hand_and_clipped_on_both_sides():
    # log p − log q = 2, −3, 0.5; clipped at 1: 1, −1, 0.5; times log p = −1, −4, −2
    logps = torch.tensor([[-1.0, -4.0, -2.0]], requires_grad=True)
    teacher = torch.tensor([[-3.0, -1.0, -2.5]])
    loss = log_ratio_reinforce(logps, teacher, 1.0)
    torch.testing.assert_close(loss, torch.tensor([[-1.0, 4.0, -1.0]]))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), logps)[0], torch.tensor([[1.0, -1.0, 0.5]]))


@pytest.mark.parametrize(
    ("tokens", "gaps", "balanced", "exponent", "expected"),
    [
        ([10, 30], [0.1, 0.3], True, 0.0, [0.5, 0.5]),
        ([10, 30], [0.1, 0.3], False, 0.0, [0.25, 0.75]),
        ([10, 30], [0.1, 0.3], True, 1.0, [0.25, 0.75]),
        ([10, 30], [0.3, 0.1], False, 1.0, [0.5, 0.5]),  # 10 · 0.3 : 30 · 0.1
        ([10, 30], [0.1, 0.3], True, 2.0, [0.1, 0.9]),
        ([10, 30, 5], [0.1, 0.3, NAN], True, 1.0, [1 / 6, 1 / 2, 1 / 3]),  # not measured: the mean, 0.2
        ([10, 30], [NAN, NAN], True, 1.0, [0.5, 0.5]),
        ([0, 30, 10], [9.0, 0.1, 0.1], True, 1.0, [0.0, 0.5, 0.5]),  # nothing taught: no part, whatever the gap
        ([10, 30], [0.0, 0.0], True, 1.0, [0.5, 0.5]),  # nobody is off
        ([0, 0], [0.1, 0.3], True, 1.0, [0.0, 0.0]),
    ],
)
def test_weights_by_hand(tokens, gaps, balanced, exponent, expected):
    found = specialty_weights(torch.tensor(tokens), torch.tensor(gaps), balanced=balanced, exponent=exponent)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(20))
def test_weights_sum_to_one_follow_order_and_ignore_the_unit(seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 200, (6,), generator=generator)
    tokens[0] = 7
    gaps = torch.rand(6, generator=generator, dtype=torch.float64) * 10 ** float(torch.randn(1, generator=generator))
    how = {"balanced": bool(seed % 2), "exponent": float(torch.rand(1, generator=generator)) * 3}
    found = specialty_weights(tokens, gaps, **how)
    assert float(found.sum()) == pytest.approx(1)
    assert bool(((found > 0) == (tokens > 0)).all())
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(specialty_weights(tokens[order], gaps[order], **how), found[order])
    torch.testing.assert_close(specialty_weights(tokens, 5 * gaps, **how), found)


def test_the_gate_by_hand():
    teacher, student = torch.tensor([1.0, 0.5, 0.25, 0.0]), torch.tensor([1.0, 0.25, 0.0, 0.5])
    assert taught("none", teacher, student).tolist() == [True, True, True, True]
    assert taught("right", teacher, student).tolist() == [True, True, False, False]
    assert taught("better", teacher, student).tolist() == [False, True, True, False]
