"""What a question is expected to earn under a guideline, and how surely: Bayesian linear regression in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def standardised(features: Tensor, by: Tensor) -> Tensor:
    """Centre and scale features as other rows would be, and put a constant before them: (1, (x - m) / s).

        m = mean of the rows of `by`,   s² = mean squared distance of a row of `by` from m

    Args:
        features: (n, d).
        by: (m, d), at least one row.

    Returns:
        (n, 1 + d) fp64; a row of `by` has a squared length of 2 on average, and 1 where all rows of `by` are the same.
    """
    m = by.double().mean(0)
    s = (by.double() - m).square().sum(1).mean().sqrt()
    scaled = (features.double() - m) / torch.where(s > 0, s, torch.inf)
    return torch.cat([torch.ones(len(features), 1, dtype=torch.float64), scaled], dim=1)


def reward_posterior(
    features: Tensor, rewards: Tensor, asked: Tensor, *, prior_std: float, noise_std: float
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of w·x for new questions, after rewards r = w·x + e were seen for others.

        w ~ N(0, s² 1),   e ~ N(0, σ²)
        mean = s² x Xᵀ C⁻¹ r,   variance = s² |x|² − s⁴ x Xᵀ C⁻¹ X xᵀ,   C = s² X Xᵀ + σ² 1

    Args:
        features: (n, d) fp64, X; n may be 0.
        rewards: (n,) fp64, less what is expected of a question of which nothing is known.
        asked: (m, d) fp64.
        prior_std: s, above 0.
        noise_std: σ, above 0.

    Returns:
        (m,) means and (m,) deviations, fp64, in the rewards' unit.

    Source: linear Thompson sampling, Agrawal & Goyal 2013, arXiv:1209.3352, whose posterior this is.
    Choice: in the n x n space of the rows, where n is hundreds and d thousands.
    """
    C = prior_std**2 * features @ features.T
    C.diagonal().add_(noise_std**2)
    L = torch.linalg.cholesky(C)
    crossed = prior_std**2 * asked @ features.T
    mean = crossed @ torch.cholesky_solve(rewards[:, None], L)[:, 0]
    explained = torch.linalg.solve_triangular(L, crossed.T, upper=False).square().sum(0)
    return mean, (prior_std**2 * asked.square().sum(1) - explained).clamp_min(0).sqrt()
