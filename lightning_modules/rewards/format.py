"""The reward of a well-formed completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from lightning_modules.rewards.term import Judged, RewardTerm


class Format(RewardTerm):
    """1 if the gates are passed: one thinking block and one answer block that can be read, and a reasoning inside."""

    name: ClassVar = "format"
    lowest: ClassVar = 1.0  # of whatever is through the gates, right or wrong

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options."""

        weight: float = 0.1
        """The weight in the total; small, since form is learned first and then only adds a constant."""

    @override
    def score(self, judged: Judged) -> float:
        return float(judged.gate is None)
