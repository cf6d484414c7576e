# Reference: the loss in one piece. Run: pytest <this file>
import weakref

import pytest
import torch

from lightning_modules.functional.accumulation import summed_in_pieces


def test_pieces_have_the_value_and_the_derivatives_of_the_whole():
    a, b, unused = (torch.randn(3, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3))
    whole = (a * b).sum() + a.square().sum()
    total = summed_in_pieces((piece for piece in [(a * b).sum(), a.square().sum()]), [a, b, unused])
    torch.testing.assert_close(total, whole)
    ours = torch.autograd.grad(2 * total, [a, b, unused], allow_unused=True)
    theirs = torch.autograd.grad(2 * whole, [a, b])
    torch.testing.assert_close(ours[:2], theirs)
    assert torch.equal(ours[2], torch.zeros(3))  # several devices wait for every parameter's


def test_shared_derivatives_and_pieces_without_any():
    a, b, w = torch.ones(3).requires_grad_(), torch.ones(3).requires_grad_(), torch.tensor([1.0, 2, 3])
    pieces = [(w * (a + b)).sum(), torch.tensor(5.0), (w * (a + b)).sum()]
    total = summed_in_pieces(pieces, [a, b])
    assert total == 29
    assert [g.tolist() for g in torch.autograd.grad(total, [a, b])] == [[2, 4, 6]] * 2


def test_one_piece_is_alive_at_a_time():
    weight = torch.ones(2).requires_grad_()
    held = []

    def pieces():
        for _ in range(3):
            assert all(reference() is None for reference in held)
            activation = weight * 2
            held.append(weakref.ref(activation))
            yield activation.square().sum()
            del activation

    assert summed_in_pieces(pieces(), [weight]) == 24


def test_without_pieces_the_sum_is_zero_and_so_are_its_derivatives():
    weight = torch.ones(2).requires_grad_()
    total = summed_in_pieces([], [weight])
    total.backward()
    assert total == 0
    assert weight.grad.tolist() == [0.0, 0.0]


def test_nothing_to_differentiate_by_is_refused():
    with pytest.raises(ValueError, match="everything frozen"):
        summed_in_pieces([], [])
