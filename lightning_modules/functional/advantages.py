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
    correct: Tensor,
    adherence: Tensor,
    guideline_of: Tensor,
    *,
    lambda_: float,
    tau: float,
    alpha: float,
    prior: Tensor,
    scale_by_std: bool = True,
    eps: float = 1e-4,
) -> Tensor:
    """Advantages of rollouts under K guidelines: correctness is compared across guidelines, adherence within each.

        A_i = w_k · [ (c_i − μ) + (λ − 1) · (μ_k − μ) ] / (σ + ε)  +  α · (a_i − ā_k) / (s_k + ε)

    for rollout i of guideline k, with μ and σ of c over the whole group, μ_k of c and ā_k, s_k of a over the group's
    rollouts under guideline k. Adherence is normalised by itself, so that a template can neither outbid a right answer
    nor be made large by a small spread of c.

    Without weights (τ = ∞, uniform π) both terms sum to zero over the group for every λ. With λ = 0 the first term sums
    to zero within every guideline whatever the weights. With finite τ and λ > 0 neither holds: the group's sum is
    Σ_k g_k · w_k · λ · (μ_k − μ) / (σ + ε), positive where trust follows reward.

    Limits: λ = 1, τ = ∞, uniform π and α = 0 are GRPO to the last bit. Equal c give exactly zero for the first term,
    equal a within a guideline for the second. One rollout under a guideline is its own baseline there: with λ = 0 its
    first term is zero, and its second always is. A guideline without rollouts takes no part: K counts the others.

    Args:
        correct: (P, R) float; c of P questions' R rollouts: what is compared across guidelines.
        adherence: (P, R) float; a of the same rollouts, NaN where a guideline has none (the neutral prompt).
        guideline_of: (R,) int64; the guideline of each place of a group, 0 to K − 1.
        lambda_: λ, at least 0; 1 is GRPO, 0 makes each guideline its own baseline, above 1 favours guidelines that suit
            the question.
        tau: τ of `guideline_weights`, in units of c.
        alpha: α, at least 0.
        prior: (K,) float, π_k.
        scale_by_std: False leaves the division by σ out, as Dr. GRPO does; adherence is always divided by its spread.
        eps: ε, added to standard deviations.

    Returns:
        (P, R) float, detached.

    Raises:
        ValueError: fewer than two rollouts in a group, λ < 0, α < 0, or values of c that are not finite.

    Source: GRPO, arXiv:2402.03300, section 4.1.2, for λ = 1 and uniform weights; Dr. GRPO, arXiv:2503.20783; λ > 1 and
        a context's own mean: NudgeRL, arXiv:2605.15726. Weights and the adherence term are ours: MMedExpert-R1
        (arXiv:2601.10949) names the idea and publishes no formula.
    Choice: sample standard deviations (divisor n − 1), as TRL and verl; of one rollout it counts as 0.
    """
    correct = correct.detach()
    if correct.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 rollouts, got {correct.shape[1]}")
    if lambda_ < 0 or alpha < 0:
        raise ValueError(f"lambda_ and alpha must be at least 0, got {lambda_} and {alpha}")
    if not bool(torch.isfinite(correct).all()):
        raise ValueError("rewards must be finite; an unknown reward must be dropped before advantages are formed")
    present, guideline_of = guideline_of.unique(return_inverse=True)
    prior = prior[present]
    member = torch.nn.functional.one_hot(guideline_of, len(prior)).to(correct)  # (R, K)
    centred = centred_rewards(correct)  # c - μ
    between = group_means(centred, member) if len(prior) > 1 else torch.zeros_like(centred)[:, : len(prior)]  # μ_k - μ
    bracket = centred + (lambda_ - 1) * between[:, guideline_of]
    if lambda_ == 0:  # the same, but equal rewards under a guideline give exactly zero
        bracket = centred_within(correct, guideline_of)
    if scale_by_std:
        bracket = bracket / (centred.std(dim=1, keepdim=True) + eps)
    weights = guideline_weights(group_means(correct, member), prior.to(correct), tau)
    advantages = bracket * weights[:, guideline_of]
    return advantages if alpha == 0 else advantages + alpha * within_guideline(adherence, guideline_of, eps=eps)


def within_guideline(values: Tensor, guideline_of: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Centre values within each guideline of each group and divide by their spread there: (a_i − ā_k) / (s_k + ε).

    Args:
        values: (P, R) float; NaN counts as having no value.
        guideline_of: (R,) int64.
        eps: ε in the values' unit.

    Returns:
        (P, R) float, detached; zero where there is no value, where a guideline has one rollout, and exactly zero where
        its values are equal.
    """
    centred = centred_within(values, guideline_of)
    spread = torch.zeros_like(centred)
    for places in places_of(guideline_of):
        if len(places) > 1:
            spread[:, places] = centred[:, places].std(dim=1, keepdim=True)
    return (centred / (spread + eps)).nan_to_num(nan=0.0)


def centred_within(values: Tensor, guideline_of: Tensor) -> Tensor:
    """(P, R) -> (P, R): values less their guideline's mean, by `centred_rewards`; detached."""
    found = torch.zeros_like(values)
    for places in places_of(guideline_of):
        found[:, places] = centred_rewards(values.detach()[:, places])
    return found


def places_of(guideline_of: Tensor) -> list[Tensor]:
    """The places of a group that belong to each guideline that has any."""
    return [(guideline_of == guideline).nonzero()[:, 0] for guideline in guideline_of.unique().tolist()]


def group_means(values: Tensor, member: Tensor) -> Tensor:
    """(P, R) values and (R, K) membership -> (P, K) means; a guideline without rollouts has mean 0."""
    return values @ member / member.sum(dim=0).clamp(min=1)


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


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """RLOO: each rollout against the mean of the others.

        A_i = r_i − mean_{j ≠ i} r_j = G / (G − 1) · (r_i − μ)

    Args:
        rewards: (P, G) float, G at least 2.

    Returns:
        (P, G) float, detached; exactly zero where all rewards are equal.

    Raises:
        ValueError: G < 2.

    Source: Kool et al. 2019; RLOO, arXiv:2402.14740.
    """
    size = rewards.shape[1]
    if size < 2:
        raise ValueError(f"a group needs at least 2 rollouts, got {size}")
    return centred_rewards(rewards.detach()) * (size / (size - 1))


def maximum_likelihood_advantages(rewards: Tensor) -> Tensor:
    """MaxRL: centred rewards over their mean, so that hard questions weigh as in the likelihood of being right.

        A_i = (r_i − μ) / μ,   0 where μ = 0

    With rewards of 0 and 1 the gradient is the mean of ∇ log π over the right rollouts, less a baseline without bias.

    Args:
        rewards: (P, G) float, at least 0.

    Returns:
        (P, G) float, detached; exactly zero where all rewards are equal.

    Raises:
        ValueError: G < 2, or a reward below 0, for which a mean is no success rate.

    Source: MaxRL, arXiv:2602.02710.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 rollouts, got {rewards.shape[1]}")
    if bool((rewards < 0).any()):
        raise ValueError("MaxRL divides by the mean reward: rewards must be at least 0; leave penalties out")
    mean = rewards.detach().mean(dim=1, keepdim=True)
    return torch.where(mean > 0, centred_rewards(rewards.detach()) / mean.where(mean > 0, torch.ones_like(mean)), 0.0)


def centred_rewards(rewards: Tensor) -> Tensor:
    """(P, G) -> (P, G): r − μ, centred on the group's first reward before averaging.

    The detour makes equal rewards centre to exactly zero, which a plain mean of, say, eight times 0.7 does not.
    """
    shifted = rewards - rewards[:, :1]
    return shifted - shifted.mean(dim=1, keepdim=True)
