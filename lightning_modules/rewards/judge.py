"""What all judges of reasoning have in common as a reward term, wherever the judge is."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typing_extensions import override

from guards.ranges import between
from lightning_modules.rewards.term import UNKNOWN, Judged, RewardTerm


class JudgeTerm(RewardTerm):
    """How good a judge finds the reasoning, 0 to 1; a grade that could not be had is unknown, and never 0.

    Choice: right and wrong answers are graded alike, and compared over the question's whole group: what a judge is for
        is to tell reasonings apart that end alike. The weight keeps it below correctness, as for every term. What
        fails a gate is not shown to it, since nothing above 0 would be paid.
    """

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options of every judge."""

        weight: float = 0.2
        """The weight in the total, as of every term; below 1 where `correct` has 1."""
        max_unknown: Annotated[float, between(0, 1)] = 0.5
        """Training stops where more than this share of a step's reasonings could not be graded."""

    @abstractmethod
    def grades(self, judged: Sequence[Judged]) -> Sequence[float]:
        """Grade reasonings that are through the gates, each in [0, 1]; what is not finite could not be had."""

    @abstractmethod
    def why_unknown(self) -> str:
        """Why the last grades could not be had, or what to look at, for a message."""

    @override
    def score(self, judged: Judged) -> float | None:
        return self.scores([judged])[0]

    @override
    def scores(self, judged: Sequence[Judged]) -> Sequence[float | None]:
        shown = [row for row, one in enumerate(judged) if one.gate is None]
        found = [0.0] * len(judged)
        for row, grade in zip(shown, self.grades([judged[row] for row in shown]), strict=True):
            found[row] = grade if math.isfinite(grade) else UNKNOWN
        unknown = sum(map(math.isnan, found))
        if unknown > self.config.max_unknown * len(judged):
            raise RuntimeError(
                f"judge: {unknown} of {len(judged)} reasonings of a step could not be graded, more than "
                f"max_unknown={self.config.max_unknown:g}; {self.why_unknown()}"
            )
        return found
