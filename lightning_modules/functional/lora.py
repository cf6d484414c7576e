"""A linear layer with low-rank updates, without the elementwise passes that autograd would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _LoRALinear(torch.autograd.Function):
    """y = x Wᵀ + b + (x Aᵀ) Bᵀ with frozen W and b; the low-rank product is added in place by the matrix product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        narrow = F.linear(x, a)
        ctx.save_for_backward(x, weight, a, b, narrow)
        return F.linear(x, weight, bias).addmm_(narrow, b.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, narrow = ctx.saved_tensors
        grad_narrow = grad @ b
        grad_x = (grad @ weight).addmm_(grad_narrow, a) if ctx.needs_input_grad[0] else None
        grad_a = grad_narrow.t() @ x if ctx.needs_input_grad[3] else None
        grad_b = grad.t() @ narrow if ctx.needs_input_grad[4] else None
        return grad_x, None, None, grad_a, grad_b


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
    a = torch.cat([a for a, _, _ in updates]) if len(updates) > 1 else updates[0][0]
    b = torch.cat([b * scale for _, b, scale in updates], dim=1)
    return _LoRALinear.apply(x.flatten(0, -2), weight, bias, a, b).unflatten(0, x.shape[:-1])
