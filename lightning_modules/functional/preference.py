"""Losses on answers that were compared or marked, the fit of a temperature, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COLDEST, HOTTEST = 1e-2, 1e2
"""Bounds of a fitted temperature: where every verdict is right, none would be cold enough."""
HALVINGS = 60
"""Of the bisection for it."""


def bradley_terry(margins: Tensor, verdicts: Tensor) -> Tensor:
    """Negative log-likelihood of who wins.

        L = -log σ(v · (r_first - r_second))        v = 1 where the first answer wins, -1 where the second does

    Args:
        margins: (P, D) reward of the first answer minus that of the second, in nats of log-odds, on D dimensions.
        verdicts: (P, D) 1, -1, or 0 for a tie.

    Returns:
        (P, D) nats; zero, and without a gradient, at ties.

    Source: Bradley & Terry 1952, Biometrika 39:324; as a loss of reward models InstructGPT, arXiv:2203.02155, eq. 1.
    Choice: ties are left out of the likelihood and of the count that it is divided by; models of ties (Rao & Kupper
        1967) need a further parameter per dimension.
    """
    return torch.where(verdicts == 0, torch.zeros_like(margins), F.softplus(-verdicts * margins))


def outcome(logits: Tensor, right: Tensor) -> Tensor:
    """Negative log-likelihood of being right, for answers that were marked one by one.

        L = -y log σ(r) - (1 - y) log σ(-r)

    Args:
        logits: (B, D) log-odds that an answer is right.
        right: (B, D) 1 or 0; NaN where an answer is not marked.

    Returns:
        (B, D) nats; zero, and without a gradient, where an answer is not marked.

    Source: Cobbe et al. 2021, arXiv:2110.14168, section 4.2: a verifier trained on outcomes. Choice: the prediction
        stands at the answer's last token alone, not at each token, as what is asked is the whole answer.
    """
    known = ~right.isnan()
    target = torch.where(known, right, torch.zeros_like(right))
    found = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.where(known, found, torch.zeros_like(found))


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Preference optimisation without a reward model.

        L = -log σ( β (log π(y_w)/π_ref(y_w) - log π(y_l)/π_ref(y_l)) )

    Args:
        chosen: (P,) nats; log-probability of the better answer, summed over its tokens, under the policy.
        rejected: (P,) the same of the worse answer.
        ref_chosen: (P,) nats; of the better answer under the frozen reference.
        ref_rejected: (P,) of the worse answer.
        beta: β, per nat; above 0.

    Returns:
        (P,) nats.

    Raises:
        ValueError: beta is not above 0.

    Source: DPO, arXiv:2305.18290, eq. 7.
    """
    if not beta > 0:
        raise ValueError(f"dpo: beta must be above 0, got {beta}")
    return F.softplus(-beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def fitted_temperature(logits: Tensor, outcomes: Tensor) -> float:
    """The temperature T that makes σ(logit / T) likeliest, in [0.01, 100].

    The negative log-likelihood is convex in 1 / T, so that its derivative is bisected:

        0 = Σ_i -s_i σ(-s_i / T)        s_i = logit_i where the outcome is 1, -logit_i where it is 0

    Args:
        logits: (N,) log-odds of outcome 1.
        outcomes: (N,) 1 or 0.

    Raises:
        ValueError: there is nothing to fit.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2, for two classes.
    """
    if logits.numel() == 0:
        raise ValueError("fitted_temperature: there is no outcome to fit to")
    signed = torch.where(outcomes > 0.5, logits, -logits).double()
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        slope = float((-signed * torch.sigmoid(-signed * middle)).sum())
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / (low * high) ** 0.5
