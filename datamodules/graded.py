"""A question with written answers, and what each answer is worth: what reward models and verifiers learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from datamodules.batch import BadExampleError, Example

DIMENSIONS = ("accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall")
"""What answers are compared on, as Med-RewardBench names it."""
RIGHT = "right"
"""The dimension of outcomes: 1 where an answer is right, 0 where it is not."""


@dataclass(frozen=True)
class Graded(Example):
    """One question and some answers to it; all are read beside the same picture and the same question.

    Attributes:
        answers: one or more, of which none is empty.
        grades: dimension -> one number per answer; only their order counts, but for `RIGHT`. Equal grades are a tie.
    """

    answers: tuple[str, ...] = ()
    grades: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"example {self.question_id!r}"
        if not self.answers or not all(text.strip() for text in self.answers):
            raise BadExampleError(f"{where}: answers must be one or more texts, none of them empty")
        if uneven := [name for name, held in self.grades.items() if len(held) != len(self.answers)]:
            name = uneven[0]
            raise BadExampleError(
                f"{where}: {len(self.grades[name])} grades of {name} for {len(self.answers)} answers; give one each"
            )

    @property
    def swapped(self) -> Graded:
        """The same with its answers the other way round."""
        grades = {name: held[::-1] for name, held in self.grades.items()}
        return replace(self, answers=self.answers[::-1], grades=grades)

    def winner(self, dimension: str) -> int | None:
        """Which of two answers is better, 0 or 1; None where they are equal, or not graded on it.

        Raises:
            BadExampleError: there are not two.
        """
        if len(self.answers) != 2:
            raise BadExampleError(f"example {self.question_id!r}: has {len(self.answers)} answers, a pair has two")
        first, second = self.grades.get(dimension, (0.0, 0.0))
        return None if first == second else int(second > first)


def graded(examples: Iterable[Example], wanted: Iterable[str]) -> tuple[Graded, ...]:
    """Examples as graded ones.

    Args:
        examples: of a split or a batch.
        wanted: dimensions of which at least one must be graded.

    Raises:
        BadExampleError: one has no answers, or none of the grades; names it.
    """
    found, names = [], tuple(wanted)
    for example in examples:
        if not isinstance(example, Graded):
            raise BadExampleError(
                f"example {example.question_id!r}: has no graded answers; a reward model learns from sets that give "
                "them, such as datamodules.phantoms.pairs.PhantomPairs"
            )
        if not set(names) & set(example.grades):
            raise BadExampleError(
                f"example {example.question_id!r}: is graded on {', '.join(example.grades) or 'nothing'}, and on none "
                f"of the dimensions that are learnt ({', '.join(names)})"
            )
        found.append(example)
    return tuple(found)
