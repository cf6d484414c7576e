"""What the phantom specialties share: one synthetic patient, one picture drawn when looked at, two cited questions.

A specialty samples a case (the class first, then the quantities), draws it, says what can be read off the picture, and
derives label and four worked traces from the same quantities by a published rule.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Annotated, Any, ClassVar

from PIL import Image
from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.phantoms.truth import Argument, Finding, KnowsTruth, Truth, Value, Values
from datamodules.prompts import question_text
from guards.ranges import at_least, between

GUIDELINES = ("differential", "intuitive", "analytical", "bayesian")
WORDINGS = 64
"""Draws of a question's wordings in which all of them occur: there are at most 12 of any sentence."""
OTHERS = 150
"""Cases whose arguments show how a specialty speaks."""


@dataclass(frozen=True)
class Reading:
    """A quantity that is visible without medicine.

    Attributes:
        question: asks for it.
        text: the wording with which every trace about it begins.
        label: the short option text that names its value.
        others: labels of visibly different values.
    """

    question: str
    text: str
    label: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question kind applied to one case.

    Attributes:
        kind: name of the question kind, a key of the specialty's `PREVALENCE`.
        text: the stem, at most 15 words.
        answer: the option that the rule gives.
        reading: the measurement wording.
        bodies: guideline name -> the middle of its trace, between the reading and the conclusion.
    """

    kind: str
    text: str
    answer: str
    reading: str
    bodies: Mapping[str, str]


class PhantomDataModule(VQADataModule, KnowsTruth):
    """A specialty whose patients are synthetic and whose labels follow published clinical rules."""

    PREFIX: ClassVar[str]
    """Starts the patients' ids and seeds their streams."""
    MODALITY: ClassVar[str]
    """Goes into the tags."""
    GENRE: ClassVar[str]
    """What a layman calls the picture."""
    PREVALENCE: ClassVar[Mapping[str, Mapping[str, float]]]
    """Question kind -> option -> its share among the patients; the priors of the bayesian traces."""
    FINDINGS: ClassVar[Mapping[str, Finding]]
    """What can be read off a picture; the units of `within` are those of the readings."""
    NEEDED: ClassVar[Mapping[str, tuple[str, ...]]]
    """Question kind -> the findings that its rule asks for."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of every phantom specialty."""

        n_patients: Annotated[int, at_least(1)] = 600
        """Synthetic patients over all splits, each with one picture and two questions; at least 1."""
        difficulty: Annotated[float, between(0, 1)] = 0.3
        """In [0, 1]: grows noise and jitter and shrinks the gap that cases leave around each cut-off."""
        data_seed: int = 0
        """Draws another population; splits move with it because ids carry it."""
        open_ended: bool = False
        """Show no options: the right one's text is then the short answer to an open question."""

    @classmethod
    @abstractmethod
    def sample(cls, rng: random.Random, difficulty: float) -> Any:
        """Draw a patient: a frozen dataclass of quantities, with all that the drawing needs."""

    @staticmethod
    @abstractmethod
    def draw(case: Any) -> Image.Image:
        """Draw the case: 112 x 112 RGB, the same picture at every call."""

    @classmethod
    @abstractmethod
    def readings(cls, case: Any) -> Sequence[Reading]:
        """What anybody could read off the picture."""

    @classmethod
    @abstractmethod
    def questions(cls, case: Any, rng: random.Random) -> Sequence[Question]:
        """The clinical questions, one of each kind; `rng` picks among wordings only."""

    @classmethod
    @abstractmethod
    def found(cls, case: Any) -> Values:
        """The value of each of `FINDINGS` in a case."""

    @classmethod
    @abstractmethod
    def supposed(cls, case: Any, stated: Values) -> Sequence[Any]:
        """Cases that are this one but for what is stated of them, one for each way in which they argue.

        Args:
            case: the true one.
            stated: some of `FINDINGS`, each possible; none is returned where they cannot be true together.
        """

    @override
    def truth(self, example: Example) -> Truth:
        kind = example.tags["question_type"]
        case = self.sample(random.Random(example.patient_id), self.config.difficulty)
        return Truth(self.found(case), self.FINDINGS, self.NEEDED[kind], partial(argued, type(self), case, kind))

    @override
    def bodies(self) -> frozenset[str]:
        return bodies_of(type(self), self.config.difficulty)

    @override
    def examples(self) -> Iterator[Example]:
        for index in range(self.config.n_patients):
            patient_id = f"{self.PREFIX}-{self.config.data_seed}-{index:05d}"
            rng = random.Random(patient_id)
            case = self.sample(rng, self.config.difficulty)
            picture = partial(self.draw, case)
            for question in self.questions(case, rng):
                yield Example(
                    patient_id=patient_id,
                    images=(picture,),
                    question=question.text,
                    options=() if self.config.open_ended else tuple(self.PREVALENCE[question.kind]),
                    answer=question.answer,
                    question_id=f"{patient_id}-{question.kind}",
                    reasoning={
                        name: trace(question.reading, question.bodies[name], question.answer) for name in GUIDELINES
                    },
                    tags={"question_type": question.kind, "modality": self.MODALITY},
                )


def argued(specialty: type[PhantomDataModule], case: Any, kind: str, stated: Values) -> Argument | None:
    """As of `Truth.argue`, for a question of one kind about a case."""
    return argued_once(specialty, case, kind, frozenset(stated.items()))


@lru_cache(maxsize=4096)
def argued_once(
    specialty: type[PhantomDataModule], case: Any, kind: str, stated: frozenset[tuple[str, Value]]
) -> Argument | None:
    """The same for findings in an order that does not count."""
    possible = all(specialty.FINDINGS[name].possible(value) for name, value in stated)
    made = [
        question
        for one in (specialty.supposed(case, dict(stated)) if possible else ())
        for draw in range(WORDINGS)
        for question in specialty.questions(one, random.Random(draw))
        if question.kind == kind
    ]
    return Argument(made[0].answer, frozenset(body for q in made for body in q.bodies.values())) if made else None


@cache
def bodies_of(specialty: type[PhantomDataModule], difficulty: float) -> frozenset[str]:
    """The arguments of many cases of a specialty, about all its kinds of questions."""
    draws = (random.Random(f"{specialty.PREFIX} {index}") for index in range(OTHERS))
    made = (question for rng in draws for question in specialty.questions(specialty.sample(rng, difficulty), rng))
    return frozenset(body for question in made for body in question.bodies.values())


def trace(reading: str, body: str, answer: str) -> str:
    """A chain of thought: the measurement first, the conclusion by name last."""
    return f"{reading}. {body}. so the answer is {answer}." if body else f"{reading}. so the answer is {answer}."


def draw_class(rng: random.Random, shares: Mapping[str, float]) -> str:
    """Draw an option by its prevalence."""
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def far_from(value: int, candidates: Iterable[int], gap: int) -> list[int]:
    """The candidates at least `gap` away from a value: distractors that look different."""
    return [other for other in candidates if abs(other - value) >= gap]


def likelihood_ratio(clear: bool) -> int:
    """Positive likelihood ratio, sensitivity / (1 - specificity), of a reading for the class it falls in.

    Choice: 0.90 / 0.05 = 18 for a reading clear of the cut-off and 0.80 / 0.20 = 4 for one near it. These are this
    data set's constants, of the size that textbooks call strong and weak evidence; they are not from a trial.
    """
    return 18 if clear else 4


def posterior(prior: float, ratio: float) -> float:
    """Bayes' rule in odds form: odds = ratio * prior / (1 - prior), returned as a probability.

    Args:
        prior: in (0, 1).
        ratio: likelihood ratio, above 0.
    """
    odds = ratio * prior / (1 - prior)
    return odds / (1 + odds)


def bayesian_body(rng: random.Random, prevalence: float, clear: bool, finding: str) -> str:
    """The update in words; the percentages are whole and the posterior follows from the prior as printed."""
    percent, ratio = round(100 * prevalence), likelihood_ratio(clear)
    result = round(100 * posterior(percent / 100, ratio))
    size = "strong" if clear else "modest"
    return rng.choice(
        (
            f"prior {percent:02d}%. {finding} has likelihood ratio {ratio:02d}, odds go up. posterior {result:02d}%",
            f"prior {percent:02d}%. likelihood ratio {ratio:02d} for {finding}, {size} rise. posterior {result:02d}%",
        )
    )


def phantom_classes() -> tuple[type[PhantomDataModule], ...]:
    """Every specialty in this package, by prefix; a new file with a new class is found without a list to edit."""
    package = importlib.import_module(__package__)
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{__package__}.{info.name}")
        found.update(
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, PhantomDataModule) and hasattr(value, "PREFIX")
        )
    return tuple(sorted(found, key=lambda one: one.PREFIX))


def texts_of(classes: Iterable[type[VQADataModule]]) -> Iterator[str]:
    """Texts to train a tokenizer on: every training prompt and trace of the classes under their defaults."""
    for one in classes:
        for example in one().splits["train"]:
            yield question_text(example)
            yield from (example.trace(name) for name in example.reasoning)
