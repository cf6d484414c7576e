"""Group-relative and guideline-based advantages: how good a rollout was beside its siblings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def guideline_weights(guideline_means: Tensor, prior: Tensor, tau: float) -> Tensor:
    """Trust per guideline: w_k = K · softmax_k(log π_k + μ_k / τ).

    Args:
        guideline_means: (P, K) float, μ_k of each question.
        prior: (K,) float, π_k, positive; need not sum to one.
        tau: τ in reward units, in [0, ∞]; ∞ leaves the prior alone, 0 gives all weight to the best guideline
            (ties share it by their prior).

    Returns:
        (P, K) float; each row sums to K. Exactly one everywhere for τ = ∞ and a uniform prior.

    Raises:
        ValueError: τ < 0 or not a number, or a prior that is not positive and finite.

    Source: none published; ours, see DECISIONS.md.
    Choice: the maximum is subtracted before the exponential, and K is multiplied before the division, so that
        uniform trust is 1.0 to the last bit for every K.
    """
    if math.isnan(tau) or tau < 0:
        raise ValueError(f"tau must lie in [0, inf], got {tau}")
    if not bool((prior > 0).all()) or not bool(torch.isfinite(prior).all()):
        raise ValueError(f"prior weights must be positive and finite, got {prior.tolist()}")
    log_prior = torch.log(prior).expand_as(guideline_means)
    if tau == 0:
        best = guideline_means == guideline_means.amax(dim=1, keepdim=True)
        scores = log_prior.masked_fill(~best, -torch.inf)
    else:
        scores = log_prior + (guideline_means - guideline_means.amax(dim=1, keepdim=True)) / tau
    unnormalised = torch.exp(scores - scores.amax(dim=1, keepdim=True))
    return unnormalised * unnormalised.shape[1] / unnormalised.sum(dim=1, keepdim=True)


def guideline_based_advantages(
    rewards: Tensor, *, lambda_: float, tau: float, prior: Tensor, scale_by_std: bool = True, eps: float = 1e-4
) -> Tensor:
    """Advantages of K guidelines' rollouts, with the between-guideline part scaled and each guideline trusted anew.

        A_{k,i} = w_k · [ (r_{k,i} − μ) + (λ − 1) · (μ_k − μ) ] / (σ + ε)

    Without weights (τ = ∞, uniform π) the advantages sum to zero over the group for every λ. With λ = 0 they sum to
    zero within every guideline whatever the weights. With finite τ and λ > 0 neither holds: the group's sum is
    Σ_k g · w_k · λ · (μ_k − μ) / (σ + ε), positive where trust follows reward.

    Limits: σ = 0 (all rewards equal) gives exactly zero; g = 1 with λ = 0 gives exactly zero, because each rollout is
    then its own baseline; a single guideline gives GRPO for every λ and τ.

    Args:
        rewards: (P, K, g) float; r of P questions, K guidelines, g rollouts each; K · g at least 2.
        lambda_: λ, at least 0; 1 is GRPO, 0 makes each guideline its own baseline, above 1 favours guidelines that suit
            the question.
        tau: τ of `guideline_weights`, in reward units.
        prior: (K,) float, π_k.
        scale_by_std: False leaves the division out, as Dr. GRPO does.
        eps: ε, added to the standard deviation, in reward units.

    Returns:
        (P, K, g) float, detached.

    Raises:
        ValueError: fewer than two rollouts in a group, λ < 0, or rewards that are not finite.

    Source: GRPO, arXiv:2402.03300, section 4.1.2, for λ = 1 and uniform weights; Dr. GRPO, arXiv:2503.20783. The
        guideline terms are ours: MMedExpert-R1 (arXiv:2601.10949) names the idea and publishes no formula.
    Choice: sample standard deviation (divisor K·g − 1), as TRL and verl.
    """
    rewards = rewards.detach()
    questions, k, g = rewards.shape
    if k * g < 2:
        raise ValueError(f"a group needs at least 2 rollouts, got {k} guidelines x {g}")
    if lambda_ < 0:
        raise ValueError(f"lambda_ must be at least 0, got {lambda_}")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("rewards must be finite; an unknown reward must be dropped before advantages are formed")
    flat = centred_rewards(rewards.reshape(questions, k * g))  # r - μ
    centred = flat.reshape(questions, k, g)
    between = centred.mean(dim=2, keepdim=True) if k > 1 else torch.zeros_like(centred)  # μ_k - μ
    bracket = centred + (lambda_ - 1) * between
    if scale_by_std:
        bracket = bracket / (flat.std(dim=1)[:, None, None] + eps)
    weights = guideline_weights(rewards.mean(dim=2), prior.to(rewards), tau)
    return bracket * weights[:, :, None]


def group_relative_advantages(rewards: Tensor, *, scale_by_std: bool = True, eps: float = 1e-4) -> Tensor:
    """GRPO: centre rewards within each question's group and divide by their spread.

        A_i = (r_i − mean(r)) / (std(r) + ε)

    Args:
        rewards: (P, G) float, G at least 2.
        scale_by_std: False leaves the division out.
        eps: ε in reward units.

    Returns:
        (P, G) float, detached; sums to zero over each group up to rounding, exactly zero where all rewards are equal.

    Raises:
        ValueError: G < 2.

    Source: GRPO, arXiv:2402.03300, section 4.1.2; Dr. GRPO, arXiv:2503.20783.
    Choice: sample standard deviation (divisor G − 1). The population one would make advantages sqrt(G / (G − 1))
        larger: 6.9 % at G = 8.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 rollouts, got {rewards.shape[1]}")
    centred = centred_rewards(rewards.detach())
    return centred / (centred.std(dim=1, keepdim=True) + eps) if scale_by_std else centred


def centred_rewards(rewards: Tensor) -> Tensor:
    """(P, G) -> (P, G): r − μ, centred on the group's first reward before averaging.

    The detour makes equal rewards centre to exactly zero, which a plain mean of, say, eight times 0.7 does not.
    """
    shifted = rewards - rewards[:, :1]
    return shifted - shifted.mean(dim=1, keepdim=True)
