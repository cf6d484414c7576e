"""Which guidelines a question is rolled out under: what every way of choosing is given, and what it may learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from lightning_modules.rollouts import Rollouts


@dataclass(frozen=True)
class Seen:
    """What a question's rollouts under one guideline earned.

    Attributes:
        place: of the question within the whole step, over all devices.
        guideline: name.
        reward: μ_k, mean of what may be compared between guidelines.
        state: (H,) of the question, as `question_states` gives it; H is 0 where the choice does not read questions.
    """

    place: int
    guideline: str
    reward: float
    state: Tensor


class Choice(ABC):
    """Spreads a question's guided rollouts over guidelines. A subclass nests its `Config`, named by its class path.

    Attributes:
        reads_questions: it is given the base's states of each question.
    """

    reads_questions: ClassVar[bool] = False
    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(
        self, questions: Sequence[Example], states: Tensor, guidelines: Sequence[str], seeds: Sequence[int]
    ) -> list[tuple[str, ...]]:
        """For each question K names out of K guidelines: who stands in for the first of them, the second, and so on.

        Args:
            questions: P, at least one.
            states: (P, H) float64, as `question_states` gives them; H is 0 where questions are not read.
            guidelines: K names, none of them neutral.
            seeds: one for each question, as nothing else of it may be random.
        """

    def fault(self, question: Example, guidelines: Sequence[str]) -> str:
        """Why it cannot choose for a question; empty where it can."""
        del question, guidelines
        return ""

    def learn(self, seen: Sequence[Seen]) -> None:
        """Take in what a step earned, on all devices the same and in the same order; most have nothing to learn."""
        del seen

    def state(self) -> dict[str, Any]:
        """What it has learnt, for a checkpoint: tensors, and lists of names."""
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        del state


def seen_in(rollouts: Rollouts) -> list[Seen]:
    """What each question earned under each guideline that it was given; what has no known reward is left out."""
    found = []
    for question, (place, carried) in enumerate(zip(rollouts.places, rollouts.carried, strict=True)):
        for name in dict.fromkeys(carried):
            mean = rollouts.mean_between(question, name) if name != NEUTRAL else None
            if mean is not None:
                found.append(Seen(place, name, mean, rollouts.states[question]))
    return found
