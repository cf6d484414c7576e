"""What part of a step of distillation each specialty has."""

from __future__ import annotations

import torch
from torch import Tensor


def specialty_weights(tokens: Tensor, gaps: Tensor, *, balanced: bool, exponent: float) -> Tensor:
    """What part of the loss each specialty has.

        w_s ∝ n_s · gap_s^γ,   n_s = 1 if balanced, else the specialty's tokens;   Σ_s w_s = 1

    The loss is Σ_s w_s · (mean over the specialty's tokens). γ = 0 balanced counts every specialty alike, γ = 0 by
    tokens counts every token alike.

    Args:
        tokens: (S,) completion tokens of the step that are taught; a specialty without any has no part.
        gaps: (S,) nats per token between student and teacher, at least 0; NaN where not measured yet: such a one
            stands at the mean of the others.
        balanced: whether specialties count alike, whatever they write.
        exponent: γ, at least 0.

    Returns:
        (S,) float64, sums to 1, or to 0 where nothing is taught.

    Source: token shares and budgets that follow the gap: Open-MOPD, arXiv:2608.19098.
    Choice: the power law is ours, as that paper's formula was not at hand. γ = 1, with gaps that
        are this step's KL, gives the gradient of ½ Σ_s KL_s², divided by Σ_s KL_s: twice as far off, pulled twice as
        much.
    """
    there = (tokens > 0).double()
    known = gaps[~gaps.isnan()]
    gaps = torch.where(gaps.isnan(), known.mean() if len(known) else 1.0, gaps.double())
    weights = there * (1.0 if balanced else tokens.double())
    following = weights * gaps.clamp(min=0) ** exponent
    weights = following if float(following.sum()) > 0 else weights  # nobody is off: as if the gap did not count
    return weights / weights.sum().clamp(min=torch.finfo(torch.float64).tiny)
