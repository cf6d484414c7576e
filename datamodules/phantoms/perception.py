"""What a base model may know before any clinical training: reading pictures, and finding an option by its text.

Four kinds of rows, none of which shows a rule. Which option to pick is drawn at random, and mostly said outright, so
that nothing about a picture tells the answer. What is learnt is to put into words what a picture shows, to find an
option, and the words and turns of phrase of the field, as scraps in random order without their reasoning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.phantoms.base import PhantomDataModule, phantom_classes, texts_of
from datamodules.prompts import NEUTRAL
from guards.ranges import at_least, between

SCRAP_WORDS = (3, 7)
"""Shortest and longest scrap of a sentence that language rows are made of."""
SCRAPS_PER_ROW = (3, 5)

LOOKUPS = ("which option says {0}?", "find the option {0}.", "which letter stands for {0}?", "pick {0} from the list.")


class PerceptionMixture(VQADataModule):
    """Rows over all specialties that teach seeing and answering, and no medicine."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of the base model's training set."""

        n_rows: Annotated[int, at_least(1)] = 4000
        """Rows over all splits, each with a patient of its own; at least 1."""
        picture_fraction: Annotated[float, between(0, 1)] = 0.7
        """Share of rows with a picture to be read, in [0, 1]; the others are text."""
        difficulty: Annotated[float, between(0, 1)] = 0.3
        """As in the specialties, in [0, 1]."""
        data_seed: int = 0
        """Draws another set; its patients are never those of a specialty, whatever their seeds."""

    @override
    def examples(self) -> Iterator[Example]:
        specialties = phantom_classes()
        vocabulary = sorted(clinical_texts())
        sentences = bodies()
        pictures = round(self.config.n_rows * self.config.picture_fraction)
        for index in range(self.config.n_rows):
            row_id = f"perception-{self.config.data_seed}-{index:05d}"
            rng = random.Random(row_id)
            specialty = specialties[index % len(specialties)]
            if index < pictures:
                yield seen(row_id, rng, specialty, self.config.difficulty)
            elif index % 4 == 0:
                yield lookup(row_id, rng, vocabulary)
            elif index % 4 == 1:
                yield text_row(
                    row_id, rng, specialty, "the picture shows", told(rng, specialty, self.config.difficulty)
                )
            else:
                yield text_row(row_id, rng, specialty, "say", scraps(rng, sentences))


def corpus() -> Iterator[str]:
    """Texts to train the tiny tokenizer on: training prompts and traces of all phantoms, and the chat's words."""
    yield from texts_of((*phantom_classes(), PerceptionMixture))
    for role in ("system", "user", "assistant"):
        yield from [f"{role}\n"] * 1000


def clinical_texts() -> frozenset[str]:
    """Every option text that is a clinical verdict in some specialty."""
    return frozenset(text for one in phantom_classes() for shares in one.PREVALENCE.values() for text in shares)


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


def text_row(row_id: str, rng: random.Random, specialty: type[PhantomDataModule], ask: str, words: str) -> Example:
    """Repeat the words that the question gives, then pick the option that it names."""
    options = rng.choice([tuple(shares) for shares in specialty.PREVALENCE.values()])
    answer = rng.choice(options)
    return Example(
        patient_id=row_id,
        images=(),
        question=f"{ask} {words}. pick {answer}.",
        options=options,
        answer=answer,
        question_id=row_id,
        reasoning={NEUTRAL: f"{words}. so the answer is {answer}."},
        tags={"question_type": "repeat", "modality": "text"},
    )


def lookup(row_id: str, rng: random.Random, vocabulary: list[str]) -> Example:
    """Find an option by its text: half of the time among a real question's options, else among any two to five."""
    if rng.random() < 0.5:
        options = rng.choice([tuple(shares) for one in phantom_classes() for shares in one.PREVALENCE.values()])
    else:
        options = tuple(rng.sample(vocabulary, rng.randint(2, 5)))
    answer = rng.choice(options)
    return Example(
        patient_id=row_id,
        images=(),
        question=rng.choice(LOOKUPS).format(answer),
        options=options,
        answer=answer,
        question_id=row_id,
        reasoning={NEUTRAL: f"it says {answer}. so the answer is {answer}."},
        tags={"question_type": "lookup", "modality": "text"},
    )
