# Reference: log_softmax of all logits at once. Run: pytest <this file>
import pytest
import torch
from torch import nn

from lightning_modules.functional.scoring import target_logps, token_logps

BANNED = torch.tensor([0, 4])


def case(learns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(6, 11, bias=False)
    head.weight.data = torch.randn(11, 6, generator=generator)
    head.requires_grad_(learns)
    hidden = torch.randn(9, 6, generator=generator).requires_grad_()
    targets = torch.tensor([1, 2, 3, 5, 6, 7, 8, 9, 10])
    return head, hidden, targets


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 4, 9])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunks_equal_the_whole_in_value_and_gradient(learns, chunk, temperature):
    head, hidden, targets = case(learns)
    logps, entropy = token_logps(hidden, targets, head, banned=BANNED, temperature=temperature, chunk=chunk)
    whole = (head(hidden).index_fill(-1, BANNED, -torch.inf) / temperature).log_softmax(-1)
    torch.testing.assert_close(logps, whole.gather(-1, targets[:, None])[:, 0])
    torch.testing.assert_close(entropy, -(whole.exp() * whole.masked_fill(whole.isinf(), 0)).sum(-1).detach())
    assert not entropy.requires_grad
    weights = torch.linspace(-1, 1, 9)
    leaves = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    ours = torch.autograd.grad((logps * weights).sum(), leaves)
    theirs = torch.autograd.grad((whole.gather(-1, targets[:, None])[:, 0] * weights).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_frozen_head_runs_once_and_never_on_more_than_a_chunk():
    head, hidden, targets = case(learns=False)
    seen = []
    logps, _ = token_logps(hidden, targets, lambda rows: seen.append(len(rows)) or head(rows), chunk=4)
    logps.sum().backward()
    assert seen == [1, 4, 4, 1]  # the first tells whether the head learns


def test_no_rows_and_no_gradient():
    head, hidden, targets = case(learns=False)
    assert token_logps(hidden[:0], targets[:0], head)[0].shape == (0,)
    with torch.no_grad():
        assert not token_logps(hidden, targets, head)[0].requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_alone_are_the_same_bits(dtype, temperature):
    head, hidden, targets = case(learns=False)
    head, hidden = head.to(dtype), hidden.detach().to(dtype).requires_grad_()
    for chunk in (None, 1, 4):
        about = {"banned": BANNED, "temperature": temperature, "chunk": chunk}
        alone = target_logps(hidden, targets, head, **about)
        assert not alone.requires_grad
        assert torch.equal(alone, token_logps(hidden, targets, head, **about)[0])
        with torch.no_grad():
            assert torch.equal(alone, token_logps(hidden, targets, head, **about)[0])
    assert target_logps(hidden[:0], targets[:0], head).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_have_a_gradient_of_their_own(dtype):
    head, hidden, targets = case(learns=False)
    head, hidden = head.to(dtype), hidden.detach().to(dtype).requires_grad_()
    logps, _ = token_logps(hidden, targets, head, banned=BANNED)
    (slope,) = torch.autograd.grad(logps.sum(), hidden)
    whole = head(hidden).float().index_fill(-1, BANNED, -torch.inf).log_softmax(-1).gather(-1, targets[:, None])
    torch.testing.assert_close(slope, torch.autograd.grad(whole.sum(), hidden)[0], atol=2e-2, rtol=2e-2)
