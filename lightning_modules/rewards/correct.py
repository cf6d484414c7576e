"""The reward of a right answer."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from lightning_modules.rewards.term import Judged, RewardTerm


class Correct(RewardTerm):
    """1 if the answer is strictly read, right, and through every gate."""

    name: ClassVar = "correct"
    only_if_right: ClassVar = True
    lowest: ClassVar = 1.0

    @override
    def score(self, judged: Judged) -> float:
        return float(judged.right)
