"""A loss in pieces, of which only one is held in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def summed_in_pieces(pieces: Iterable[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The sum of losses, differentiated one after the other.

    Each piece's derivatives are taken, and its graph is freed, before the next piece is asked for. What is returned is
    one number whose backward pass hands the sums of those derivatives to the parameters, so that whatever happens
    around a backward pass (gradient hooks, several devices) happens once, as for a loss in one piece.

    Every parameter gets a derivative, zero where no piece has a part in it or where there is no piece: several
    devices wait for each other's gradient of every parameter, and one device must not differ from them.

    Args:
        pieces: () losses, none or more; a generator computes each when it is asked for.
        parameters: leaves that require a gradient, at least one.

    Returns:
        () sum; zero without pieces.

    Raises:
        ValueError: there is no parameter.
    """
    if not parameters:
        raise ValueError("there is no parameter to differentiate by; is everything frozen?")
    total: Tensor | None = None
    sums: list[Tensor | None] = [None] * len(parameters)
    for piece in pieces:
        known = piece.requires_grad  # a piece that no parameter has a part in has no derivatives
        found = torch.autograd.grad(piece, parameters, allow_unused=True) if known else [None] * len(parameters)
        total = piece.detach() if total is None else total + piece.detach()
        sums = [b if a is None else a if b is None else a + b for a, b in zip(sums, found, strict=True)]
    if total is None:
        total = parameters[0].new_zeros(())
    derivatives = [torch.zeros_like(p) if known is None else known for p, known in zip(parameters, sums, strict=True)]
    return _KnownDerivatives.apply(total, derivatives, *parameters)


class _KnownDerivatives(torch.autograd.Function):
    """A number whose derivatives by the parameters are given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, derivatives: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.derivatives = derivatives
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad * known for known in ctx.derivatives)
