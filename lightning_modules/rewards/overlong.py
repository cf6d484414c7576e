"""A penalty that grows as a completion nears the length limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from typing_extensions import override

from guards.ranges import at_least
from lightning_modules.rewards.term import Judged, RewardTerm


class Overlong(RewardTerm):
    """DAPO's soft overlong punishment: 0 up to a length, then a straight line down to -1.

        score(y) = 0                                    |y| <= L_max - L_cache
                   ((L_max - L_cache) - |y|) / L_cache  L_max - L_cache < |y| <= L_max
                   -1                                   L_max < |y|

    Source: DAPO, arXiv:2503.14476, equation 13; L_max is `max_tokens`, L_cache is `buffer`.
    Choice: a completion that was cut off counts as longer than L_max, whatever limit cut it. The default weight is
        0.5: DAPO sets the whole penalty against a reward of 1 or -1, which is half of that range, and ours is 0 or 1.
        The penalty holds behind a failed gate too.
    """

    name: ClassVar = "overlong"
    lowest: ClassVar = -1.0
    highest: ClassVar = 0.0

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options."""

        weight: float = 0.5
        """The weight in the total, as of every term; below what a right answer earns more than a wrong one."""
        max_tokens: Annotated[int, at_least(1)] = 96
        """L_max in tokens, at least 1: the module's `max_new_tokens`, or less."""
        buffer: Annotated[int, at_least(1)] = 20
        """L_cache in tokens, from 1 to `max_tokens`; DAPO takes a fifth of L_max."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.buffer > self.max_tokens:
                raise ValueError(f"buffer must lie in [1, max_tokens={self.max_tokens}], got {self.buffer}")

    @override
    def score(self, judged: Judged) -> float:
        c = self.config
        free = c.max_tokens - c.buffer
        if judged.truncated or judged.n_tokens > c.max_tokens:
            return -1.0
        return min(0.0, (free - judged.n_tokens) / c.buffer)
