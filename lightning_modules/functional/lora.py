"""A linear layer with low-rank updates, without the elementwise passes that autograd would make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _LoRALinear(torch.autograd.Function):
    """y = x Wᵀ + b + Σ (x A_iᵀ) B_iᵀ with frozen W and b; the matrix product itself adds each update in place.

    One after the other, so that an update of zero changes no bit: a fresh adapter leaves the model exactly as it was.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        out = F.linear(x, weight, bias)
        narrow = []
        for a, b in _pairs(factors):
            narrow.append(F.linear(x, a))
            out.addmm_(narrow[-1], b.t())
        ctx.save_for_backward(x, weight, *factors, *narrow)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        count = len(rest) // 3
        factors, narrow = rest[: 2 * count], rest[2 * count :]
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for i, (a, b) in enumerate(_pairs(factors)):
            wanted_a, wanted_b = ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i]
            grad_narrow = grad @ b if grad_x is not None or wanted_a else None
            if grad_x is not None:
                grad_x.addmm_(grad_narrow, a)
            grads.append(grad_narrow.t() @ x if wanted_a else None)
            grads.append(grad.t() @ narrow[i] if wanted_b else None)
        return grad_x, None, None, *grads


def _pairs(factors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(factors[::2], factors[1::2], strict=True)


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, updates: Sequence[tuple[Tensor, Tensor, float]]
) -> Tensor:
    """A frozen linear layer under the sum of several low-rank updates.

        y = x (W + Σ s_i B_i A_i)ᵀ + b

    Args:
        x: (…, in) float.
        weight: W, (out, in); must not require a gradient.
        bias: b, (out,) or None; likewise.
        updates: (A_i (r_i, in), B_i (out, r_i), s_i); at least one.

    Returns:
        (…, out) float.

    Source: LoRA, arXiv:2106.09685, equation 3.
    """
    factors = [factor for a, b, scale in updates for factor in (a, b * scale)]
    return _LoRALinear.apply(x.flatten(0, -2), weight, bias, *factors).unflatten(0, x.shape[:-1])
