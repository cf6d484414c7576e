"""Logits in fp32 from frozen weights of lower precision: their rounding would be that of a probability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.functional.wide_product import wide_product


def fp32_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Hidden · weightᵀ with sums and result in fp32.

    Args:
        hidden: (…, H) float of any precision.
        weight: (V, H), frozen, of less than fp32.

    Returns:
        (…, V) float32.

    Choice: a head in bf16 would round logits of size 20 to steps of 0.125, an eighth of a nat in log-probabilities
        that are compared with others. Products of two bf16 numbers are exact in fp32.
    """
    return _WideHead.apply(hidden.flatten(0, -2), weight).unflatten(0, hidden.shape[:-1])


class _WideHead(torch.autograd.Function):
    """The product and its derivative by the hidden states; the weight has none."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = hidden.dtype
        return wide_product(hidden, weight.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return wide_product(grad, weight).to(ctx.dtype), None
