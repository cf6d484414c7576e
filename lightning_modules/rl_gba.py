"""GBA: reinforcement learning with guideline-based advantages, and a term on the prompt that is used at test time.

Source: the four perspectives: MMedExpert-R1, arXiv:2601.10949; the contrast between contexts and the transfer:
    NudgeRL, arXiv:2605.15726.
Choice: the advantage formula and every hyper-parameter are ours, the paper publishes none (docs/method.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from configs.schema import Slot
from lightning_modules.advantages.advantage import Advantage
from lightning_modules.parts import GuidelineNames
from lightning_modules.policy_gradient import PolicyGradient
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.transfer.transfer import Transfer


class GBA(PolicyGradient):
    """Guideline-based RL of one specialty's expert: `PolicyGradient` with the parts that make it GBA."""

    adapter = "gba"
    kind = "gba"

    @dataclass(frozen=True)
    class Config(PolicyGradient.Config):
        """Guidelines, their advantages, adherence as a reward, and transfer; everything else as `PolicyGradient`."""

        guidelines: GuidelineNames = ("differential", "intuitive", "analytical", "bayesian")
        """K guideline names, or paths of guideline files; `neutral` is the prompt without an instruction."""
        rollouts_per_guideline: int = 2
        """g, rollouts of a question under each of `guidelines`; at least 1."""
        neutral_share: float = 0.2
        """Share of a group under the neutral prompt, in [0, 1), beside `guidelines`, which then must not name it."""
        advantage: Annotated[dict[str, Any], Slot(Advantage)] = field(
            default_factory=lambda: {"class_path": "lightning_modules.advantages.guideline_based.GuidelineBased"}
        )
        """How good a rollout was beside its siblings."""
        rewards: tuple[Annotated[dict[str, Any], Slot(RewardTerm)], ...] = field(
            default_factory=lambda: (
                {"class_path": "lightning_modules.rewards.correct.Correct"},
                {"class_path": "lightning_modules.rewards.format.Format"},
                {"class_path": "lightning_modules.rewards.adherence.Adherence"},
            )
        )
        """Reward terms, each with a `weight`; adherence is compared within its guideline, whatever its weight."""
        transfer: Annotated[dict[str, Any], Slot(Transfer)] | None = field(
            default_factory=lambda: {
                "class_path": "lightning_modules.transfer.policy_gradient.PolicyGradientTransfer",
                "init_args": {"eta": 1.0},
            }
        )
        """What guided rollouts do to the neutral prompt; null for nothing."""
