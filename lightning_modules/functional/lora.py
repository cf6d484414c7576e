"""A linear layer with low-rank updates, without the elementwise passes that autograd would make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.functional.wide_product import add_wide_product, halves, wide_product

LOW = torch.bfloat16
"""Precision of activations in which an update is added by `add_wide_product`."""

Updates = Sequence[tuple[Tensor, Tensor, float]]
"""(A_i (r_i, in), B_i (out, r_i), s_i) of each update."""


def lora_linear(x: Tensor, weight: Tensor, bias: Tensor | None, updates: Updates) -> Tensor:
    """A frozen linear layer under the sum of several low-rank updates.

        y = x (W + Σ s_i B_i A_i)ᵀ + b

    Args:
        x: (…, in) float.
        weight: W, (out, in), of x's precision; must not require a gradient.
        bias: b, (out,) or None; likewise.
        updates: at least one; of x's precision, or, where that is bf16, each factor in bf16 or fp32.

    Returns:
        (…, out) of x's precision.

    Source: LoRA, arXiv:2106.09685, equation 3.
    Choice: under bf16 activations x A_iᵀ is kept in fp32, and each update is added to the bf16 result with one rounding
        of the sum; fp32 factors take part as the sum of two bf16 numbers, which loses 2⁻¹⁶ of them. So an update that
        is too small for its factors' own bf16 still acts, and no copy of x or y in fp32 is made. An update of zero
        changes no bit.
    """
    return lora_over(x, lambda x: F.linear(x, weight, bias), lambda: weight, updates)


def lora_over(x: Tensor, product: Callable[[Tensor], Tensor], matrix: Callable[[], Tensor], updates: Updates) -> Tensor:
    """As `lora_linear`, over a frozen layer whose weight is not held as a plain matrix.

    Args:
        x: (…, in) float.
        product: (N, in) -> (N, out), of x's precision: the layer without updates.
        matrix: W, (out, in), of x's precision; made anew whenever a backward pass asks for it, and not kept.
        updates: as of `lora_linear`.
    """
    factors = [factor for a, b, _ in updates for factor in (a, b)]
    scales = tuple(scale for *_, scale in updates)
    function = _LowLoRALinear if x.dtype == LOW else _LoRALinear
    return function.apply(x.flatten(0, -2), product, matrix, scales, *factors).unflatten(0, x.shape[:-1])


def stacked(updates: Updates) -> tuple[Tensor, Tensor]:
    """Updates of one layer as the two matrices of low precision that `lora_stacked` takes.

    Returns:
        (in, 2R) and (6R, out) where R is the sum of the ranks: what each factor is in low precision, and what is left.
    """
    down = torch.cat([a.float() for a, _, _ in updates])
    up = torch.cat([b.float().t() * scale for _, b, scale in updates])
    (down_high, down_low), (up_high, up_low) = halves(down, LOW), halves(up, LOW)
    return torch.cat([down_high, down_low]).t(), torch.cat([up_high, up_high, up_low, up_low, up_high, up_high])


def lora_stacked(x: Tensor, product: Callable[[Tensor], Tensor], down: Tensor, up: Tensor) -> Tensor:
    """As `lora_over` of bf16, without gradient and with factors from `stacked`, in fewer launches.

    Args:
        x: (…, in) bf16.
        product: as of `lora_over`.
        down: (in, 2R).
        up: (6R, out).
    """
    flat = x.flatten(0, -2)
    out, narrow = product(flat), wide_product(flat, down)
    parts = out.new_empty(len(flat), 3, narrow.shape[1])  # by A's high and low part: rounded, rounded, what is left
    parts[:, :2] = narrow[:, None]
    torch.sub(narrow, parts[:, 0], out=parts[:, 2])
    out.addmm_(parts.flatten(1), up)
    return out.unflatten(0, x.shape[:-1])


class _LoRALinear(torch.autograd.Function):
    """All in one precision; the matrix product itself adds each update in place.

    One after the other, so that an update of zero changes no bit: a fresh adapter leaves the model exactly as it was.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        product: Callable[[Tensor], Tensor],
        matrix: Callable[[], Tensor],
        scales: tuple[float, ...],
        *factors: Tensor,
    ) -> Tensor:
        out = product(x)
        narrow = []
        for (a, b), scale in zip(_pairs(factors), scales, strict=True):
            narrow.append(F.linear(x, a))
            out.addmm_(narrow[-1], (b * scale).t())
        ctx.save_for_backward(x, *factors, *narrow)
        ctx.matrix, ctx.scales = matrix, scales
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factors, narrow = _saved(ctx)
        grad_x = grad @ ctx.matrix() if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for i, ((a, b), scale) in enumerate(zip(_pairs(factors), ctx.scales, strict=True)):
            wanted_a, wanted_b = _wanted(ctx, i)
            grad_narrow = grad @ (b * scale) if grad_x is not None or wanted_a else None
            if grad_x is not None:
                grad_x.addmm_(grad_narrow, a)
            grads.append(grad_narrow.t() @ x if wanted_a else None)
            grads.append((grad.t() @ narrow[i]) * scale if wanted_b else None)
        return grad_x, None, None, None, *grads


class _LowLoRALinear(torch.autograd.Function):
    """Activations in bf16; what is narrow, (r, N), is in fp32, and so are the factors' derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        product: Callable[[Tensor], Tensor],
        matrix: Callable[[], Tensor],
        scales: tuple[float, ...],
        *factors: Tensor,
    ) -> Tensor:
        out = product(x)
        narrow = []
        for (a, b), scale in zip(_pairs(factors), scales, strict=True):
            narrow.append(wide_product(a, x.t()))
            add_wide_product(out, narrow[-1], b.float().t() * scale)
        ctx.save_for_backward(x, *factors, *narrow)
        ctx.matrix, ctx.scales = matrix, scales
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factors, narrow = _saved(ctx)
        grad_x = grad @ ctx.matrix() if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for i, ((a, b), scale) in enumerate(zip(_pairs(factors), ctx.scales, strict=True)):
            wanted_a, wanted_b = _wanted(ctx, i)
            if grad_x is not None or wanted_a:
                grad_narrow = wide_product(b.float().t() * scale, grad.t())
                if grad_x is not None:
                    add_wide_product(grad_x, grad_narrow, a)
            grads.append(wide_product(grad_narrow, x).to(a.dtype) if wanted_a else None)
            grads.append((wide_product(narrow[i], grad).t() * scale).to(b.dtype) if wanted_b else None)
        return grad_x, None, None, None, *grads


def _pairs(factors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(factors[::2], factors[1::2], strict=True)


def _saved(ctx: Any) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """X, the factors, and x A_iᵀ of each update."""
    x, *rest = ctx.saved_tensors
    count = len(rest) // 3
    return x, rest[: 2 * count], rest[2 * count :]


def _wanted(ctx: Any, update: int) -> tuple[bool, bool]:
    """Whether an update's A, and whether its B, learns."""
    first = 4 + 2 * update
    return ctx.needs_input_grad[first], ctx.needs_input_grad[first + 1]
