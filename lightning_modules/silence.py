"""Settings under which a run, or a part of it, would never do anything."""

from __future__ import annotations

from dataclasses import replace

import torch

from datamodules.prompts import NEUTRAL
from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.layout import Layout
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.transfer.transfer import Transfer

TRIALS = 32
"""Made outcomes that are tried; the chance that each of them is dead by accident is nil."""


def refuse_silence(advantage: Advantage, layout: Layout, rewards: Rewards, guidelines: dict[str, Guideline]) -> None:
    """Try an advantage on made outcomes, in which every term takes every value that it can.

    Args:
        advantage: of the run.
        layout: rollouts per guideline.
        rewards: terms with their weights and ranges.
        guidelines: those of the layout, by name.

    Raises:
        ValueError: every advantage is zero.
    """
    found = advantage(made_outcome(layout, rewards, guidelines))
    if bool((found == 0).all()):
        weights = {term.name: term.config.weight for term in rewards.terms}
        raise ValueError(
            f"every advantage is zero whatever is rolled out: {type(advantage).__name__} with {advantage.config} on "
            f"{dict(layout.counts)} rollouts and reward weights {weights}. One rollout under a guideline is its own "
            "baseline where guidelines are not compared (lambda_: 0): raise rollouts_per_guideline or lambda_"
        )


def refuse_idle_transfer(transfer: Transfer | None, layout: Layout) -> None:
    """Refuse a transfer that has no rollout to act on.

    Raises:
        ValueError: it takes neutral rollouts or a teaching guideline, and the layout has none.
    """
    guided = [name for name in layout.guidelines if name != NEUTRAL]
    if transfer is not None and transfer.from_teacher and (NEUTRAL not in layout.counts or not guided):
        raise ValueError(
            f"transfer: {type(transfer).__name__} acts on neutral rollouts whose question a guideline answers better, "
            f"and a group has {dict(layout.counts)}; set neutral_share above 0 and name guidelines"
        )


def refuse_penalty(
    advantage: Advantage, layout: Layout, rewards: Rewards, guidelines: dict[str, Guideline], dynamic_share: float
) -> None:
    """Refuse a KL in the reward where the rest cannot be had with it.

    Args:
        advantage: of the run, which may take no reward below 0; this and what follows as of `refuse_silence`.
        layout: rollouts per guideline.
        rewards: terms with their weights and ranges.
        guidelines: those of the layout, by name.
        dynamic_share: above 0 groups without a difference are replaced, and the KL differs in every group.

    Raises:
        ValueError: names the setting.
    """
    if dynamic_share:
        raise ValueError(
            f"dynamic_share: {dynamic_share} would replace no group: a KL in the reward differs between any two "
            "completions, so that no group is dead; take lightning_modules.losses.kl.InLoss, or dynamic_share: 0"
        )
    made = made_outcome(layout, rewards, guidelines)
    most = made.total.amax() + 1  # a completion may lose more than it earns
    try:
        advantage(replace(made, total=made.total - most, between=made.between - most))
    except ValueError as error:
        raise ValueError(f"kl: taken from the reward, which {type(advantage).__name__} refuses: {error}") from error


def made_outcome(layout: Layout, rewards: Rewards, guidelines: dict[str, Guideline]) -> Outcome:
    """(TRIALS, R) of made scores within the terms' ranges: right answers, wrong ones, and some behind a gate.

    A term that is compared within a guideline has none where the guideline has no criteria.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (TRIALS, layout.size)
    kind = torch.randint(0, 3, shape, generator=generator)  # 0 behind a gate, 1 wrong, 2 right
    between, within = torch.zeros(shape, dtype=torch.float64), torch.full(shape, torch.nan, dtype=torch.float64)
    has_criteria = torch.tensor([bool(guidelines[name].criteria) for name in layout.guidelines])[layout.guideline_of]
    for term in rewards.terms:
        made = torch.rand(shape, generator=generator, dtype=torch.float64)
        score = term.lowest + (term.highest - term.lowest) * made
        paid = torch.where(kind == 0, score.clamp(max=0), score) * ((kind == 2) | (not term.only_if_right))
        if term.within_guideline:
            added = within[:, has_criteria].nan_to_num(nan=0.0) + term.config.weight * paid[:, has_criteria]
            within[:, has_criteria] = added
        else:
            between = between + term.config.weight * paid
    prior = torch.ones(len(layout.guidelines), dtype=torch.float64)
    total = between + within.nan_to_num(nan=0.0)
    return Outcome(total, between, within, layout.guideline_of, layout.guidelines, prior)
