"""What the generator of a synthetic case knows and nobody is told: its findings, and what its rule makes of any."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datamodules.batch import Example

IS = r"(?:(?:is|of|at|about|measures|[=:]) ?)*"
"""Expression for what may stand between a finding's name and its value."""
Value = str | float
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Finding:
    """One thing that can be read off a picture, and how a text says that it was read.

    Attributes:
        sayings: regular expression over case-folded text -> the value that it states; empty where its one group does.
        within: how far a number may be off and still be that reading, in its own unit; 0 for words and counts.
        low: least number for which the rule is made.
        high: greatest one.
    """

    sayings: Mapping[str, str]
    within: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def means(self, said: str) -> Value:
        """The value of what a group caught: a number where the finding is one."""
        return float(said) if self.high else said

    def agrees(self, said: Value, true: Value) -> bool:
        """Whether a stated value is a reading of the true one."""
        if isinstance(said, str) or isinstance(true, str):
            return said == true
        return abs(said - true) <= self.within + 1e-9

    def possible(self, value: Value) -> bool:
        """Whether the rule is made for such a value."""
        return isinstance(value, str) or self.low <= value <= self.high


@dataclass(frozen=True)
class Argument:
    """What a rule makes of findings.

    Attributes:
        answer: the option that it gives.
        bodies: every text in which the generator would argue from these findings to this answer.
    """

    answer: str
    bodies: frozenset[str]


@dataclass(frozen=True)
class Truth:
    """What is known of one question.

    Attributes:
        findings: name -> value in this case.
        sayings: name -> how a text states it.
        needed: the findings that the question's rule asks for.
        argue: findings as somebody states them -> what the rule makes of them, with the case's own in place of those
            that are not stated; None where no case has them together.
    """

    findings: Values
    sayings: Mapping[str, Finding]
    needed: tuple[str, ...]
    argue: Callable[[Values], Argument | None]


class KnowsTruth:
    """A set whose cases are generated, so that reasoning about them can be held against them by rule.

    It has no metaclass of its own: configurations are checked with a stand-in for Lightning, which has another.
    """

    @abstractmethod
    def truth(self, example: Example) -> Truth:
        """What is known of one of its questions.

        Args:
            example: as `examples` gave it; its options may stand in another order.
        """

    @abstractmethod
    def bodies(self) -> frozenset[str]:
        """Arguments about many other cases: what is among them is said in this set's words, be it right or wrong."""
