"""Per-token objectives of policy-gradient fine-tuning. Reductions are in `reductions.py`."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log-ratios are clamped to ±20 nats before any exponential: e^20 is finite in every float type and far outside any
clip range."""


def clamped_log_ratio(logps: Tensor, other_logps: Tensor) -> Tensor:
    """(B, T) logps − other_logps in nats, clamped to ±`LOG_RATIO_BOUND`."""
    return (logps - other_logps).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def sequence_log_ratio(log_ratio: Tensor, completion_mask: Tensor) -> Tensor:
    """The GSPO ratio: every token carries the mean log-ratio of its completion, with the token's own gradient.

        log s_{i,t} = sg[ (1/|y_i|) Σ_t log ρ_{i,t} ] + log π_{i,t} − sg[ log π_{i,t} ]

    Args:
        log_ratio: (B, T) nats.
        completion_mask: (B, T) bool.

    Returns:
        (B, T) nats; the value is equal along a row.

    Source: GSPO, arXiv:2507.18071, section 4.3 (GSPO-token).
    """
    lengths = completion_mask.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (log_ratio * completion_mask).sum(dim=1, keepdim=True) / lengths
    return mean.detach() + log_ratio - log_ratio.detach()


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Negative clipped policy-gradient objective per token.

        ℓ = − min( ρ · A, clip(ρ, 1 − ε_low, 1 + ε_high) · A ),   ρ = exp(log ratio)

    Args:
        log_ratio: (B, T) nats, current minus sampling policy.
        advantages: (B,) float.
        clip_low: ε_low in [0, 1].
        clip_high: ε_high, at least 0.

    Returns:
        (B, T) float; exactly zero, with zero gradient, where the advantage is zero.

    Source: PPO, arXiv:1707.06347, equation 7; separate bounds: DAPO, arXiv:2503.14476, section 3.1.
    """
    ratio = torch.exp(log_ratio)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    column = advantages[:, None]
    return -torch.minimum(ratio * column, clipped * column)


def k1_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(B, T) nats: log π − log π_ref, unbiased for KL(π ∥ π_ref) on samples of π, may be negative.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return clamped_log_ratio(logps, ref_logps)


def k2_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(B, T) nats: (log π − log π_ref)² / 2; its gradient is that of the KL on samples of π.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return clamped_log_ratio(logps, ref_logps).square() / 2


def k3_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(B, T) nats: exp(δ) − δ − 1 with δ = log π_ref − log π; unbiased and never negative.

    Source: Schulman 2020, "Approximating KL divergence"; GRPO, arXiv:2402.03300, equation 4.
    """
    delta = clamped_log_ratio(ref_logps, logps)
    return torch.expm1(delta) - delta
