"""Products with a factor in bf16 whose sums are fp32, without a copy of that factor in fp32."""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS = 2**25
"""Numbers of the low factor that are held in fp32 at once where the device has no product with a wider result."""


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """(N, K) of any precision x (K, M) of a low one -> (N, M) float32, summed in fp32.

    On an accelerator a wider `left` is the sum of two parts of the low precision, which loses 2⁻¹⁶ of it.
    """
    if left.is_cuda:
        high, low = halves(left, right.dtype)
        product = torch.mm(high, right, out_dtype=torch.float32)
        return product if low is None else product + torch.mm(low, right, out_dtype=torch.float32)
    wide = left.float()
    columns = max(1, ELEMENTS // max(1, right.shape[0]))
    return torch.cat([wide @ part.float() for part in right.split(columns, dim=1)], dim=1)


def add_wide_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ · right to a result of low precision in place, with one rounding of the sum.

    Wider factors are the sums of two parts of the low precision; the product of the two lower parts, 2⁻¹⁶ of the
    whole, is left out.

    Args:
        out: (N, M) of low precision.
        left: (K, N) of any precision.
        right: (K, M) of any precision.
    """
    left_high, left_low = halves(left, out.dtype)
    right_high, right_low = halves(right, out.dtype)
    pairs = [(left_high, right_high)]
    if right_low is not None:
        pairs.append((left_high, right_low))
    if left_low is not None:
        pairs.append((left_low, right_high))
    stacked_left, stacked_right = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    out.addmm_(stacked_left.t(), stacked_right)


def halves(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A tensor as the sum of two of a lower precision; None for the second where it is of that precision itself."""
    if values.dtype == dtype:
        return values, None
    high = values.to(dtype)
    return high, (values - high).to(dtype)
