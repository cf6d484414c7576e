"""Per-token objectives of policy-gradient fine-tuning. Reductions are in `reductions.py`."""

from __future__ import annotations

import math

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


def dual_clipped(surrogate: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """Keep the surrogate of a bad rollout from growing without end: for A < 0 the loss is at most −bound · A.

        ℓ' = min( ℓ, − c · A )   where A < 0

    Args:
        surrogate: (B, T) float, of `clipped_surrogate`.
        advantages: (B,) float.
        bound: c, above 1; infinity changes nothing.

    Source: Ye et al. 2020, arXiv:1912.09729, section 4.
    """
    column = advantages[:, None]
    return (
        torch.where(column < 0, torch.minimum(surrogate, -bound * column), surrogate)
        if bound < torch.inf
        else surrogate
    )


def weighted_log_likelihood(
    log_ratio: Tensor, logps: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """The CISPO objective per token: the ratio is clipped as a weight, and no token loses its gradient.

        ℓ = − sg[ clip(ρ, 1 − ε_low, 1 + ε_high) ] · A · log π

    Args:
        log_ratio: (B, T) nats, current minus sampling policy.
        logps: (B, T) nats, current policy, with gradient.
        advantages: (B,) float.
        clip_low: ε_low in [0, 1]; 1 sets no lower bound.
        clip_high: ε_high, at least 0.

    Returns:
        (B, T) float.

    Source: MiniMax-M1, arXiv:2506.13585, equations 4 and 5.
    """
    weight = log_ratio.detach().exp().clamp(1 - clip_low, 1 + clip_high)
    return -weight * advantages[:, None] * logps


def truncated_importance_weights(old_logps: Tensor, sampler_logps: Tensor, cap: float) -> Tensor:
    """(B, T) weights that correct for a sampler whose log-probabilities are not the trainer's.

        w = min( π_old / π_sampler, C )

    Args:
        old_logps: (B, T) nats under the trainer, before the first update.
        sampler_logps: (B, T) nats as sampled.
        cap: C, at least 1.

    Returns:
        (B, T) float, detached.

    Source: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    """
    return clamped_log_ratio(old_logps, sampler_logps).exp().clamp(max=cap).detach()


def shaped_ratio(log_ratio: Tensor, gamma: float = 0.1) -> Tensor:
    """X / (x + γ) of the ratio x: close to 1 for likely tokens, steep for rare ones, which a raw ratio would lose.

    Args:
        log_ratio: (B, T) nats.
        gamma: γ, above 0.

    Source: LUFFY, arXiv:2504.14945, policy shaping; γ = 0.1 as published.
    """
    return torch.sigmoid(log_ratio - math.log(gamma))


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
