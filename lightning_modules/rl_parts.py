"""The parts of a policy-gradient objective, built from its settings, and refused where they do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datamodules.prompts import NEUTRAL
from lightning_modules.advantages.advantage import Advantage
from lightning_modules.choices.choice import Choice
from lightning_modules.engines.engine import Engine
from lightning_modules.layout import Layout, layout_of
from lightning_modules.losses.kl import KLPenalty
from lightning_modules.losses.loss import PolicyLoss
from lightning_modules.parts import part
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.guidelines import Guideline, load_guidelines
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_settings import RLSettings
from lightning_modules.silence import refuse_idle_transfer, refuse_penalty, refuse_silence
from lightning_modules.transfer.transfer import Transfer


@dataclass(frozen=True)
class RLParts:
    """What varies between algorithms; each is named as its setting in `RLSettings`.

    Attributes:
        guidelines: by name, in the order of `layout`.
        layout: rollouts per guideline.
        choice: who stands in for whom in the layout, question by question.
    """

    guidelines: Mapping[str, Guideline]
    layout: Layout
    choice: Choice | None
    advantage: Advantage
    rewards: Rewards
    loss: PolicyLoss
    kl: KLPenalty | None
    transfer: Transfer | None
    engine: Engine

    @classmethod
    def of(cls, c: RLSettings) -> RLParts:
        """Build them; no model is needed.

        Raises:
            ValueError: a part is of another kind, the terms would let a wrong answer outscore a right one, every
                advantage would be zero, a transfer would have nothing to act on, the engine is not exact and nothing
                corrects for that, or the advantage refuses a KL that is taken from the reward.
            ImportError: there is no such class.
        """
        guidelines = load_guidelines([NEUTRAL] * (c.neutral_share > 0) + list(c.guidelines))
        named = tuple(guidelines)[-len(c.guidelines) :]
        parts = cls(
            guidelines,
            layout_of(named, c.rollouts_per_guideline, c.neutral_share),
            part(c.choice, Choice, "choice") if c.choice else None,
            part(c.advantage, Advantage, "advantage"),
            Rewards([part(spec, RewardTerm, "rewards") for spec in c.rewards]),
            part(c.loss, PolicyLoss, "loss"),
            part(c.kl, KLPenalty, "kl") if c.kl else None,
            part(c.transfer, Transfer, "transfer") if c.transfer else None,
            part(c.engine, Engine, "engine"),
        )
        refuse_uncorrected(parts.engine, c)
        refuse_silence(parts.advantage, parts.layout, parts.rewards, guidelines)
        refuse_idle_transfer(parts.transfer, parts.layout)
        if parts.kl is not None and parts.kl.in_reward:
            refuse_penalty(parts.advantage, parts.layout, parts.rewards, guidelines, c.dynamic_share)
        return parts


def refuse_uncorrected(engine: Engine, settings: RLSettings) -> None:
    """Refuse settings that take what an engine recorded for the policy's own where it is not.

    Raises:
        ValueError: says which.
    """
    if engine.exact:
        return
    name = type(engine).__name__
    if not settings.sampler_weight_cap:
        raise ValueError(
            f"engine {name} samples from a copy of the policy, so that its rollouts need weights: set "
            "sampler_weight_cap, 2 for example"
        )
    if settings.kl and part(settings.kl, KLPenalty, "kl").in_reward:
        raise ValueError(
            f"engine {name} samples from a copy of the policy, whose rounding a KL in the reward would take for a "
            "distance to the reference; take lightning_modules.losses.kl.InLoss"
        )
