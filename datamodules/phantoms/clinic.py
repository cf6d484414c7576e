"""A clinic in which the question decides which way to reason: the four specialties' opposite, where all ways agree.

Every stem carries base rates, an absent sign and how bloody the fluid is; the film shows heart and fluid. So each of
the four strategies of `clinic_rules` has an answer to every question, and mostly they differ. The end of the stem says
which one is asked for, which is the question's type. A patient has two questions about one film whose answers differ:
half of the patients are asked twice in one way, with the deciding words of the stem changed, the others once for the
pattern and once in another way, with the same stem. So no strategy by itself comes far.

Worked traces are what a corpus is that was filtered by answers: each strategy reasons by its own rule, and its trace is
kept where that ends in the right answer. The neutral prompt is given patterns, and the right strategy rarely (`p0`).

Choice: the films are `chest.ChestFilms`' own, the words those of the specialties, and no class here is a
    `PhantomDataModule`: the embedded base reads the films without knowing anything of this clinic, and its tokenizer
    and training set do not depend on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, ClassVar

from typing_extensions import override

from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import Example
from datamodules.phantoms.base import GUIDELINES
from datamodules.phantoms.chest import FLUID, ChestFilms
from datamodules.phantoms.clinic_rules import (
    BODIES,
    DISEASES,
    LOOK_ALIKES,
    READINGS,
    SIGNS,
    Visit,
    strategy_trace,
)
from datamodules.phantoms.truth import Argument, KnowsTruth, Truth, Values
from guards.ranges import at_least, between

ASKS = {
    "bayesian": "What do the odds say?",
    "differential": "Which is not excluded?",
    "analytical": "Where is the fluid from?",
    "intuitive": "What does this film show?",
}
"""Question type -> the end of its stem."""
PATTERN = "intuitive"
TURNED = tuple(name for name in ASKS if name != PATTERN)
"""Types whose answer can be turned by words of the stem."""
PRIORS = {
    (True, True): (40, 50, 60, 80),
    (True, False): (10, 15, 20),
    (False, True): (80, 85, 90),
    (False, False): (20, 40, 50, 60),
}
"""(whether the heart is wide, whether volume load is likelier) -> base rates in percent. Every film's heart turns the
verdict of some of them, and the base rate turns that of every film."""
BLOOD = ((2, 3, 4), (6, 7, 8))
"""Tenths of the blood's haematocrit, without and with a torn vessel."""
SIDES = ChestFilms.NEEDED["effusion"]
WIDTH = ChestFilms.NEEDED["heart_size"]
LOOKED_AT = {"bayesian": WIDTH, "analytical": WIDTH, "differential": SIDES, "intuitive": SIDES}
"""Question type -> what its rule needs of the film; a pattern on both sides also needs the heart."""
OTHERS = 300
"""Visits whose arguments show how the clinic speaks."""


class Clinic(VQADataModule, KnowsTruth):
    """Patients with pleural fluid, two questions each, of four types."""

    MODALITY: ClassVar = "X-ray"

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of the clinic."""

        n_patients: Annotated[int, at_least(1)] = 600
        """Synthetic patients over all splits, each with one film and two questions; at least 1."""
        difficulty: Annotated[float, between(0, 1)] = 0.3
        """In [0, 1]: as in the specialties; of the film alone."""
        data_seed: int = 0
        """Draws another population; splits move with it because ids carry it."""
        p0: Annotated[float, between(0, 1)] = 0.10
        """Share of the right strategy's traces among what the neutral prompt is taught about questions that need
        another strategy than the pattern, in [0, 1]; the others are patterns."""

    @override
    def examples(self) -> Iterator[Example]:
        for index in range(self.config.n_patients):
            patient_id = f"clinic-{self.config.data_seed}-{index:05d}"
            for number, (kind, visit) in enumerate(asked(patient_id, self.config.difficulty)):
                answer = READINGS[kind](visit)
                yield Example(
                    patient_id=patient_id,
                    images=(partial(ChestFilms.draw, visit.film),),
                    question=stem(visit, kind),
                    options=DISEASES,
                    answer=answer,
                    question_id=f"{patient_id}-{number}",
                    reasoning={
                        name: strategy_trace(visit, name) for name in GUIDELINES if READINGS[name](visit) == answer
                    },
                    tags={"question_type": kind, "modality": self.MODALITY},
                )

    @override
    def truth(self, example: Example) -> Truth:
        number = int(example.question_id.rpartition("-")[2])
        kind, visit = asked(example.patient_id, self.config.difficulty)[number]
        pattern_of_both = kind == PATTERN and visit.both
        needed = LOOKED_AT[kind] + (WIDTH if pattern_of_both else ())
        return Truth(ChestFilms.found(visit.film), ChestFilms.FINDINGS, needed, partial(argued, visit, kind))

    @override
    def bodies(self) -> frozenset[str]:
        return bodies_of(self.config.difficulty)

    @override
    def plainly(self, example: Example, guideline: str) -> bool:
        """Patterns, and in their place a share `p0` of the right strategy.

        Both come only from questions on which the pattern is right: the others, whose one right trace is the right
        strategy's, would teach the neutral prompt to choose it.
        """
        kind = example.tags["question_type"]
        if PATTERN not in example.reasoning:
            return False
        rare = uniform_hash("p0", example.question_id) < self.config.p0
        return guideline == (kind if rare else PATTERN)


def asked(patient_id: str, difficulty: float) -> tuple[tuple[str, Visit], tuple[str, Visit]]:
    """A patient's two questions, each as its type and visit; the number in the id says how they are drawn."""
    index = int(patient_id.rpartition("-")[2])
    return pair(random.Random(patient_id), TURNED[index // 2 % 3], index % 2 == 0, difficulty)


def argued(visit: Visit, kind: str, stated: Values) -> Argument | None:
    """As of `Truth.argue`: what the rule that is asked for makes of the film as stated and of what the stem tells."""
    possible = all(ChestFilms.FINDINGS[name].possible(value) for name, value in stated.items())
    films = ChestFilms.supposed(visit.film, stated) if possible else []
    visits = [replace(visit, film=film) for film in films if any(film.blunt)]
    if not visits:
        return None
    return Argument(READINGS[kind](visits[0]), frozenset(BODIES[kind](one) for one in visits))


@cache
def bodies_of(difficulty: float) -> frozenset[str]:
    """The arguments of many visits, in all four ways."""
    draws = (random.Random(f"clinic {index}") for index in range(OTHERS))
    return frozenset(body(visit) for rng in draws for visit in [drawn(rng, difficulty)] for body in BODIES.values())


def pair(rng: random.Random, kind: str, alike: bool, difficulty: float) -> tuple[tuple[str, Visit], tuple[str, Visit]]:
    """Two questions about one film whose answers differ, each as its type and visit, in random order.

    Args:
        rng: draws them.
        kind: a type that words of the stem turn.
        alike: ask both times in this way, with the deciding words changed; else the other question is for the pattern.
        difficulty: of the film.
    """
    visit = drawn(rng, difficulty)
    other = turned(rng, visit, kind)
    if alike:
        found = [(kind, visit), (kind, other)]
    else:
        one = next(v for v in (visit, other) if READINGS[kind](v) != READINGS[PATTERN](v))
        found = [(kind, one), (PATTERN, one)]
    rng.shuffle(found)
    return found[0], found[1]


def drawn(rng: random.Random, difficulty: float) -> Visit:
    """A visit of which nothing is known: half of the films have fluid on both sides, half a wide heart."""
    fluid, wide = rng.choice(("right effusion", "left effusion", "both sides", "both sides")), rng.random() < 0.5
    while True:
        film = ChestFilms.sample(rng, difficulty)
        visit = Visit(film, 0, rng.choice(DISEASES[1:]), "", 0)
        if FLUID[film.blunt] == fluid and visit.wide == wide:
            break
    return replace(
        visit,
        prior=rng.choice(PRIORS[wide, rng.random() < 0.5]),
        absent=rng.choice(LOOK_ALIKES[visit.both]),
        blood=rng.choice(rng.choice(BLOOD)),
    )


def turned(rng: random.Random, visit: Visit, kind: str) -> Visit:
    """The same film with the words changed that decide a type, so that its answer is another."""
    if kind == "bayesian":
        return replace(visit, prior=rng.choice(PRIORS[visit.wide, visit.chance <= 0.5]))
    if kind == "differential":
        return replace(visit, absent=READINGS[kind](visit))
    return replace(visit, blood=rng.choice(BLOOD[not visit.torn]))


def stem(visit: Visit, kind: str) -> str:
    """What is told and asked."""
    return (
        f"{DISEASES[0]} in {visit.prior}%, {visit.rest} in {100 - visit.prior}%. No {SIGNS[visit.absent]}. "
        f"Blood 0.{visit.blood}. {ASKS[kind]}"
    )
