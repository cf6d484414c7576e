"""The settings of policy-gradient training: its parts by class path, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from configs.schema import Slot
from datamodules.prompts import NEUTRAL
from guards.ranges import above, at_least, between
from lightning_modules.advantages.advantage import Advantage
from lightning_modules.choices.choice import Choice
from lightning_modules.engines.engine import Engine
from lightning_modules.losses.kl import KLPenalty
from lightning_modules.losses.loss import PolicyLoss
from lightning_modules.parts import GuidelineNames
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.stage import Stage
from lightning_modules.transfer.transfer import Transfer


@dataclass(frozen=True)
class RLSettings(Stage.Config):
    """Parts, how much is rolled out, what counts in the loss, and how often a batch of rollouts is used."""

    learning_rate: float = 5e-4
    """Peak of the schedule, above 0."""
    warmup: float = 2.0
    """Linear warm-up: below 1 a share of the steps, else steps."""
    guidelines: GuidelineNames = (NEUTRAL,)
    """Guideline names, or paths of guideline files; `neutral` is the prompt without an instruction."""
    rollouts_per_guideline: Annotated[int, at_least(1)] = 8
    """g, rollouts of a question under each of `guidelines`; at least 1."""
    neutral_share: Annotated[float, between(0, 1, open_high=True)] = 0.0
    """Share of a group under the neutral prompt, in [0, 1), beside `guidelines`, which then must not name it."""
    questions_per_step: Annotated[int, at_least(1)] = 8
    """P, questions per step over all devices; at least 1."""
    temperature: Annotated[float, above(0)] = 1.0
    """The temperature of sampling, and of the distribution that is scored; above 0."""
    max_new_tokens: Annotated[int, at_least(1)] = 96
    """T_max in tokens, at least 1."""
    reduction: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """DAPO's, GRPO's or Dr. GRPO's reduction of the loss per token."""
    updates_per_rollout: Annotated[int, at_least(1)] = 1
    """μ, passes over a batch of rollouts; at least 1."""
    minibatches: Annotated[int, at_least(1)] = 1
    """Optimiser steps per pass, each on a part of the questions; at least 1, at most `questions_per_step`."""
    dynamic_share: Annotated[float, between(0, 1)] = 0.0
    """Share of a step's questions that must teach something, in [0, 1]: dead groups are replaced by further questions;
    0 asks none."""
    dynamic_rounds: Annotated[int, at_least(1)] = 3
    """How often more is asked for `dynamic_share`, at most; at least 1."""
    mask_truncated: bool = False
    """Leave completions that reached the limit out of the loss; they stay in the baseline."""
    sampler_weight_cap: float = 0.0
    """C of the truncated importance weight between sampler and policy, at least 1; 0 leaves it out."""
    entropy_bonus: Annotated[float, at_least(0)] = 0.0
    """Weight of the mean entropy, per nat, at least 0."""
    pass_rate: Annotated[tuple[float, float], between(0, 1)] = (0.0, 1.0)
    """Train on questions whose pass rate under the parent expert and the neutral prompt lies in this range; [0, 1]
    takes all and measures nothing."""
    pass_rate_samples: Annotated[int, at_least(1)] = 8
    """Answers per question for `pass_rate`, sampled once per parent and kept; at least 1."""
    curriculum: bool = False
    """Take questions from easy to hard by pass rate instead of in random order."""
    lora_rank: Annotated[int, at_least(1)] = 16
    """r of the adapter that learns, at least 1."""
    lora_alpha: Annotated[float, above(0)] = 32.0
    """Scale numerator of the adapter, above 0."""
    lora_seed: int = 1
    """Seed of the adapter's A."""

    advantage: Annotated[dict[str, Any], Slot(Advantage)] = field(
        default_factory=lambda: {"class_path": "lightning_modules.advantages.grpo.GRPO"}
    )
    """How good a rollout was beside its siblings: a class of `lightning_modules.advantages`, or your own."""
    choice: Annotated[dict[str, Any], Slot(Choice)] | None = None
    """Which of `guidelines` a question's guided rollouts are under, as many as otherwise: a class of
    `lightning_modules.choices`; null spreads them evenly over all."""
    loss: Annotated[dict[str, Any], Slot(PolicyLoss)] = field(
        default_factory=lambda: {"class_path": "lightning_modules.losses.clipped.Clipped"}
    )
    """Policy loss per token: a class of `lightning_modules.losses`."""
    kl: Annotated[dict[str, Any], Slot(KLPenalty)] | None = field(
        default_factory=lambda: {"class_path": "lightning_modules.losses.kl.InLoss"}
    )
    """Distance to the reference, in the loss or in the reward; null leaves it and the reference pass out."""
    rewards: tuple[Annotated[dict[str, Any], Slot(RewardTerm)], ...] = field(
        default_factory=lambda: (
            {"class_path": "lightning_modules.rewards.correct.Correct"},
            {"class_path": "lightning_modules.rewards.format.Format"},
        )
    )
    """Reward terms, each with a `weight`; a term of your own is one class with one method."""
    transfer: Annotated[dict[str, Any], Slot(Transfer)] | None = None
    """What guided rollouts do to the neutral prompt: a class of `lightning_modules.transfer`; null for nothing."""
    engine: Annotated[dict[str, Any], Slot(Engine)] = field(
        default_factory=lambda: {"class_path": "lightning_modules.engines.packed.Packed"}
    )
    """What writes the rollouts: a class of `lightning_modules.engines`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        group = len(self.guidelines) * self.rollouts_per_guideline
        low, high = self.pass_rate
        ranges = {
            "guidelines must name at least one": len(self.guidelines) >= 1,
            "guidelines must not repeat": len(set(self.guidelines)) == len(self.guidelines),
            "neutral_share must be 0 where guidelines names neutral, whose rollouts are then counted there": not (
                self.neutral_share and NEUTRAL in self.guidelines
            ),
            "a group needs at least 2 rollouts: raise rollouts_per_guideline": group >= 2 or self.neutral_share > 0,
            "choice chooses among guidelines, of which there must be 2, none of them neutral": not self.choice
            or (len(self.guidelines) >= 2 and NEUTRAL not in self.guidelines),
            "minibatches must lie between 1 and questions_per_step": self.minibatches <= self.questions_per_step,
            "sampler_weight_cap must be 0 or at least 1": self.sampler_weight_cap == 0 or self.sampler_weight_cap >= 1,
            "pass_rate must be two numbers in [0, 1], the lower one first": low <= high,
        }
        broken = [message for message, holds in ranges.items() if not holds]
        if broken:
            raise ValueError("; ".join(broken))
