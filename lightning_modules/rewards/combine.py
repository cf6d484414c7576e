"""One number per rollout: correctness, format and adherence, with correctness always on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.answers import LETTERS, extract, thinking_of
from lightning_modules.rewards.adherence import adherence
from lightning_modules.rewards.gates import Gate, gates
from lightning_modules.rewards.guidelines import Guideline


class Question(Protocol):
    """What is read of an example; `datamodules.batch.Example` has it."""

    @property
    def question(self) -> str:
        """The stem, without options."""

    @property
    def options(self) -> Sequence[str]:
        """The texts in the order shown."""

    @property
    def letter(self) -> str:
        """The right option's letter."""


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the components; a wrong answer must never outscore a right one.

    Among completions that pass the gates, a wrong one gets at most `format + adherence` and a right one at least
    `correct + format`: so adherence < correct.
    """

    correct: float = 1.0
    """Of a strictly right answer; above 0."""
    format: float = 0.1
    """Of passing the gates; at least 0."""
    adherence: float = 0.3
    """Of full adherence to the rollout's guideline; at least 0 and below `correct`."""

    def __post_init__(self) -> None:
        values = {"correct": self.correct, "format": self.format, "adherence": self.adherence}
        for name, value in values.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"reward weight {name} must be finite and at least 0, got {value}")
        # Compared as they will be added, so that rounding cannot undo the promise.
        if not self.correct + self.format > self.format + self.adherence:
            raise ValueError(
                f"reward weights: adherence {self.adherence} must be below correct {self.correct}, or a wrong answer "
                f"(format + adherence = {self.format + self.adherence:g}) could outscore a right one "
                f"(correct + format = {self.correct + self.format:g})"
            )


@dataclass(frozen=True)
class Reward:
    """The reward of one completion.

    Attributes:
        total: Σ of weight times component; 0 if a gate fails.
        correct: 1 if the answer is strictly right and the gates are passed, else 0.
        format: 1 if the gates are passed, else 0.
        adherence: in [0, 1], 0 if a gate fails; None where there is nothing to adhere to (`neutral`).
        gate: the gate that fails, or None.
        letter: what was strictly read, even if a later gate fails; None if unparsed.
        criteria: credit per criterion of the guideline; empty for `neutral` or behind a gate.
    """

    total: float
    correct: float
    format: float
    adherence: float | None
    gate: Gate | None
    letter: str | None
    criteria: Mapping[str, float] = field(default_factory=dict)


def reward(completion: str, example: Question, guideline: Guideline, weights: RewardWeights) -> Reward:
    """Reward one completion under the guideline whose instruction its prompt carried.

        total = w_correct · correct + w_format · format + w_adherence · adherence        0 behind a failed gate

    "Right" means strictly read, right, and through the gates: a right letter after an empty or echoed reasoning earns
    nothing and is not counted as right. A `neutral` rollout has no adherence term; its total is not scaled up for it,
    so neutral and guided rollouts of one group differ by up to w_adherence for that reason alone.

    Args:
        completion: as generated, without the prompt.
        example: the question that was put.
        guideline: of this rollout.
        weights: see `RewardWeights`.
    """
    gate = gates(completion, example.question, example.options, guideline.instruction)
    letter = extract(completion, example.options).letter
    if gate is not None or letter is None:
        return Reward(0.0, 0.0, 0.0, 0.0 if guideline.criteria else None, gate, letter)
    correct = float(letter == example.letter)
    total = weights.correct * correct + weights.format
    if not guideline.criteria:
        return Reward(total, correct, 1.0, None, None, letter)
    chosen = example.options[LETTERS.index(letter)]
    scored = adherence(thinking_of(completion), example.options, chosen, guideline)
    return Reward(total + weights.adherence * scored.score, correct, 1.0, scored.score, None, letter, scored.criteria)
