"""What a base model may know before any clinical training: reading pictures, finding options, and reasoning.

None of the rows shows a specialty's rule. Which option to pick is drawn at random, and mostly said outright, so that
nothing about a picture tells the answer. What is learnt is to put into words what a picture shows, to find the letter
of an option, to use what a question states (`datamodules.phantoms.general`), and the words and turns of phrase of the
field, as scraps in random order without their reasoning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.phantoms.base import PhantomDataModule, phantom_classes, texts_of
from datamodules.phantoms.general import MOST_OPTIONS, OWN_WORDS, REASONING, Drawn, finding, letters, row
from datamodules.prompts import NEUTRAL
from guards.ranges import at_least, between

SCRAP_WORDS = (3, 7)
"""Shortest and longest scrap of a sentence that language rows are made of."""
SCRAPS_PER_ROW = (3, 5)
TOLD = 1 / 3
"""Share of what a picture would show among the words to be said again; the others are scraps."""

KINDS = ("reading", "repeat", "lookup", "letters", *REASONING)
"""Question types: a picture to read, words to say again, an option to find among a specialty's or any verdicts, any
of some names that mean nothing, and those of `general`."""
SHARES = {"reading": 0.4, "repeat": 0.12, "lookup": 0.16, "letters": 0.12} | dict.fromkeys(REASONING, 0.05)


class PerceptionMixture(VQADataModule):
    """Rows over all specialties that teach seeing and answering, and no medicine."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of the base model's training set."""

        n_rows: Annotated[int, at_least(1)] = 4000
        """Rows over all splits, each with a patient of its own; at least 1."""
        shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))
        """Question type -> its weight among the rows, at least 0; what is not named does not occur."""
        most_words: Annotated[int, at_least(1)] = 2
        """Longest names of `letters`, in words; at least 1."""
        difficulty: Annotated[float, between(0, 1)] = 0.3
        """How hard the pictures are to read, as in the specialties, in [0, 1]."""
        data_seed: int = 0
        """Draws another set; its patients are never those of a specialty, whatever their seeds."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if strange := sorted(set(self.shares) - set(KINDS)):
                raise ValueError(f"shares names {', '.join(strange)}; there are {', '.join(KINDS)}")
            for kind, share in self.shares.items():
                if fault := at_least(0).fault(f"shares.{kind}", share):
                    raise ValueError(fault)
            if not any(self.shares.values()):
                raise ValueError("shares gives no question type a weight above 0")

    @override
    def examples(self) -> Iterator[Example]:
        config, specialties = self.config, phantom_classes()
        verdicts, sentences = sorted(clinical_texts()), bodies()
        words = plain_words(sentences, verdicts)
        for index in range(config.n_rows):
            row_id = f"perception-{config.data_seed}-{index:05d}"
            rng = random.Random(row_id)
            (kind,) = rng.choices(list(config.shares), list(config.shares.values()))
            specialty = specialties[index % len(specialties)]
            if kind == "reading":
                yield seen(row_id, rng, specialty, config.difficulty)
            elif kind == "repeat" and rng.random() < TOLD:
                said = told(rng, specialty, config.difficulty)
                yield row(row_id, kind, repeat(rng, specialty, "the picture shows", said))
            elif kind == "repeat":
                yield row(row_id, kind, repeat(rng, specialty, "say", scraps(rng, sentences)))
            elif kind == "lookup":
                yield row(row_id, kind, lookup(rng, verdicts))
            elif kind == "letters":
                yield row(row_id, kind, letters(rng, [*words, *verdict_words(verdicts)], config.most_words))
            else:
                yield row(row_id, kind, REASONING[kind](rng, words))


def corpus() -> Iterator[str]:
    """Texts to train the tiny tokenizer on: training prompts and traces of all phantoms, and the chat's words."""
    yield from texts_of((*phantom_classes(), PerceptionMixture))
    for role in ("system", "user", "assistant"):
        yield from [f"{role}\n"] * 1000


def clinical_texts() -> frozenset[str]:
    """Every option text that is a clinical verdict in some specialty."""
    return frozenset(text for one in phantom_classes() for shares in one.PREVALENCE.values() for text in shares)


def verdict_words(verdicts: list[str]) -> list[str]:
    """The words that verdicts are made of."""
    return sorted({word for verdict in verdicts for word in verdict.split()})


def plain_words(sentences: list[list[str]], verdicts: list[str]) -> list[str]:
    """Words of the traces of which no verdict is made: names without a meaning of their own."""
    found = {word.strip(",.;:()") for sentence in sentences for word in sentence} - set(verdict_words(verdicts))
    return sorted(word for word in found - OWN_WORDS if word.isalpha() and len(word) > 1)


def readings_of(case: object, specialty: type[PhantomDataModule], rng: random.Random) -> str:
    """All that can be read off a picture, in any order, in the wording of the traces."""
    texts = list(dict.fromkeys(reading.text for reading in specialty.readings(case)))
    rng.shuffle(texts)
    return ". ".join(texts)


def seen(row_id: str, rng: random.Random, specialty: type[PhantomDataModule], difficulty: float) -> Example:
    """A picture of a fresh patient: put it into words, then pick the option that the question names, or any of them.

    "Any" is a coin toss that teaches to stay among the options shown, so that a base without medicine guesses.
    """
    case = specialty.sample(rng, difficulty)
    options = rng.choice([tuple(shares) for shares in specialty.PREVALENCE.values()])
    answer = rng.choice(options)
    return Example(
        patient_id=row_id,
        images=(partial(specialty.draw, case),),
        question=f"read the picture, then pick {rng.choice((answer, 'any'))}.",
        options=options,
        answer=answer,
        question_id=row_id,
        reasoning={NEUTRAL: f"{readings_of(case, specialty, rng)}. so the answer is {answer}."},
        tags={"question_type": "reading", "modality": specialty.MODALITY},
    )


def told(rng: random.Random, specialty: type[PhantomDataModule], difficulty: float) -> str:
    """What a picture would show."""
    return readings_of(specialty.sample(rng, difficulty), specialty, rng)


def bodies() -> list[list[str]]:
    """The words of the traces' middles, without readings and conclusions, each distinct one once."""
    found: dict[str, None] = {}
    for one in phantom_classes():
        for index in range(200):
            rng = random.Random(f"{one.PREFIX}-language-{index}")
            for question in one.questions(one.sample(rng, 0.3), rng):
                found.update(dict.fromkeys(question.bodies.values()))
    return [body.split() for body in found]


def scraps(rng: random.Random, sentences: list[list[str]]) -> str:
    """A few scraps of different sentences, too short to carry an argument."""
    parts = []
    for _ in range(rng.randint(*SCRAPS_PER_ROW)):
        words = rng.choice(sentences)
        length = min(len(words), rng.randint(*SCRAP_WORDS))
        start = rng.randint(0, len(words) - length)
        parts.append(" ".join(words[start : start + length]).strip(",.;:"))
    return ". ".join(parts)


def repeat(rng: random.Random, specialty: type[PhantomDataModule], ask: str, words: str) -> Drawn:
    """Repeat the words that the question gives, then pick the option that it names."""
    options = rng.choice([tuple(shares) for shares in specialty.PREVALENCE.values()])
    answer = rng.choice(options)
    return f"{ask} {words}. pick {answer}.", options, answer, words


def lookup(rng: random.Random, verdicts: list[str]) -> Drawn:
    """Find an option by its text: half of the time among a real question's options, else among any two to five."""
    if rng.random() < 0.5:
        options = rng.choice([tuple(shares) for one in phantom_classes() for shares in one.PREVALENCE.values()])
    else:
        options = tuple(rng.sample(verdicts, rng.randint(2, MOST_OPTIONS)))
    return finding(rng, options)
