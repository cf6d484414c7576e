"""GRPO, and Dr. GRPO without the division: centred total rewards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.functional.advantages import group_relative_advantages


class GRPO(Advantage):
    """Total reward against the mean of the question's whole group, whatever the guidelines."""

    @dataclass(frozen=True)
    class Config:
        """What centred rewards are divided by."""

        scale_by_std: bool = True
        """Divide by the group's standard deviation; false is Dr. GRPO."""

    @override
    def __call__(self, outcome: Outcome) -> Tensor:
        return group_relative_advantages(outcome.total, scale_by_std=self.config.scale_by_std)
