"""What a reward is made of: terms, each a small class that scores one completion."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from guards.ranges import Ranged, at_least
from lightning_modules.rewards.gates import Gate
from lightning_modules.rewards.guidelines import Guideline


class Question(Protocol):
    """What is read of an example; `datamodules.batch.Example` has it."""

    @property
    def question_id(self) -> str:
        """Unique within the data."""

    @property
    def question(self) -> str:
        """The stem, without options."""

    @property
    def options(self) -> Sequence[str]:
        """The texts in the order shown; none where the answer is a short text."""

    @property
    def letter(self) -> str:
        """The right option's letter, where there are options."""

    @property
    def answer(self) -> str:
        """The text of the right option, or the right short answer."""

    @property
    def reasoning(self) -> Mapping[str, str]:
        """Guideline name -> worked reasoning, which holds what is to be seen; may be empty."""


@dataclass(frozen=True)
class Judged:
    """One completion as a reward term sees it.

    Attributes:
        text: the completion as generated, without the prompt.
        example: the question that was put.
        guideline: whose instruction the prompt carried.
        thinking: the text between the thinking tags; empty without them.
        n_tokens: its length in tokens, the end token included.
        truncated: it was cut off at the length limit.
        gate: the gate that fails, or None.
        letter: what was strictly read, even if a gate fails; None if unparsed, or without options.
        right: strictly read, right, and through every gate.
        answer: what was strictly read, a letter, or without options a text; None if unparsed.
    """

    text: str
    example: Question
    guideline: Guideline
    thinking: str
    n_tokens: int
    truncated: bool
    gate: Gate | None
    letter: str | None
    right: bool
    answer: str | None = None


UNKNOWN = math.nan
"""A score that could not be had, as of a judge that did not answer: its completion is left out of its group."""


class RewardTerm(ABC):
    """One summand of the reward. A term of your own is a subclass with `score`, named by class path in the YAML.

    Behind a failed gate a score above 0 is not paid; a penalty is.
    """

    name: ClassVar[str]
    """As metrics and cards spell it; a subclass that gives none is called by its class name in snake case."""
    within_guideline: ClassVar[bool] = False
    """Compared only among rollouts under the same guideline, for scores that guidelines do not give alike."""
    only_if_right: ClassVar[bool] = False
    """Paid only where the answer is right."""
    lowest: ClassVar[float] = 0.0
    """The least that `score` gives what it is paid for: a completion through the gates, right if `only_if_right`."""
    highest: ClassVar[float] = 1.0
    """The most that `score` gives."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of every term."""

        weight: Annotated[float, at_least(0)] = 1.0
        """The weight of the score in the total; finite and at least 0."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    def __init__(self, config: Config | None = None) -> None:
        """Take the options.

        Args:
            config: see `Config`; the term's defaults if absent.
        """
        self.config = config if config is not None else self.Config()

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """What scores follow from besides completion and settings, as JSON, to be recorded with the run.

        None where there is nothing. A run that began under another identity is refused.
        """
        return None

    def check(self) -> None:  # noqa: B027, most terms have nothing to do
        """Refuse what cannot act, before anything is loaded or trained.

        Raises:
            ValueError: says why.
        """

    def attach(self, policy: Any) -> None:
        """Take the policy that is trained, before anything is scored; most terms need none."""
        del policy

    def begin(self, folder: Path, rank: int, ranks: int) -> None:
        """Take the run's folder before its first step, and which of its devices this is; most terms need neither."""
        del folder, rank, ranks

    def rehearse(self) -> None:  # noqa: B027, most terms have nothing to do
        """From now on ask nobody outside of this process: what is scored is a dry run."""

    def plan(self, completions: int) -> str:
        """What scoring so many completions would ask of others, at most, in words; empty where nobody is asked."""
        del completions
        return ""

    def applies_to(self, example: Question) -> bool:
        """Whether the term can score any answer to a question; one that can score none of them all is refused."""
        del example
        return True

    @abstractmethod
    def score(self, judged: Judged) -> float | None:
        """Score a completion, unweighted, between `lowest` and `highest`.

        Args:
            judged: the completion; its gate may have failed, then the letter may be None.

        Returns:
            The score; None where the term does not apply; `UNKNOWN` where it applies and could not be had.
        """

    def scores(self, judged: Sequence[Judged]) -> Sequence[float | None]:
        """Score many completions; a term that scores them faster together than one by one says so here."""
        return [self.score(one) for one in judged]

    def criteria(self, judged: Judged) -> Mapping[str, float]:
        """What the score was made of, by name, for cards and logs; nothing unless a term says otherwise."""
        return {}
