"""What a base model may know before any clinical training: reading pictures, and finding an option by its text.

Three kinds of rows, none of which shows a rule: reading a quantity off a picture, naming the kind of picture, and
text-only look-up of an option. Clinical verdicts occur in look-ups alone, where no picture is shown and the asked-for
text is drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.phantoms.base import PhantomDataModule, Reading, phantom_classes, texts_of, trace
from datamodules.prompts import NEUTRAL

LOOKUPS = (
    ("which option says {0}?", "it says {0}"),
    ("find the option {0}.", "we look for {0}"),
    ("which letter stands for {0}?", "{0} is asked for"),
    ("pick {0} from the list.", "the list holds {0}"),
)
"""Question and chain of thought of a look-up."""


class PerceptionMixture(VQADataModule):
    """Rows over all specialties that teach seeing and answering, and no medicine."""

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """Options of the base model's training set."""

        n_rows: int = 4000
        """Rows over all splits, each with a patient of its own; at least 1."""
        lookup_fraction: float = 0.4
        """Share of text-only look-ups, in [0, 1]."""
        genre_fraction: float = 0.05
        """Share of rows that ask for the kind of picture, in [0, 1 - lookup_fraction]; the rest read a quantity."""
        difficulty: float = 0.3
        """As in the specialties, in [0, 1]."""
        data_seed: int = 0
        """Draws another set; its patients are never those of a specialty, whatever their seeds."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n_rows < 1:
                raise ValueError(f"n_rows must be at least 1, got {self.n_rows}")
            if not 0 <= self.lookup_fraction <= 1 or not 0 <= self.genre_fraction <= 1 - self.lookup_fraction:
                raise ValueError(
                    "lookup_fraction and genre_fraction must be at least 0 and sum to at most 1, "
                    f"got {self.lookup_fraction} and {self.genre_fraction}"
                )
            if not 0 <= self.difficulty <= 1:
                raise ValueError(f"difficulty must lie in [0, 1], got {self.difficulty}")

    @override
    def examples(self) -> Iterator[Example]:
        specialties = phantom_classes()
        vocabulary = sorted(clinical_texts())
        lookups = round(self.config.n_rows * self.config.lookup_fraction)
        genres = round(self.config.n_rows * self.config.genre_fraction)
        for index in range(self.config.n_rows):
            row_id = f"perception-{self.config.data_seed}-{index:05d}"
            rng = random.Random(row_id)
            if index < lookups:
                yield lookup(row_id, rng, vocabulary)
                continue
            specialty = specialties[index % len(specialties)]
            yield self.picture_row(row_id, rng, specialty, specialties, asks_genre=index < lookups + genres)

    def picture_row(
        self,
        row_id: str,
        rng: random.Random,
        specialty: type[PhantomDataModule],
        specialties: Sequence[type[PhantomDataModule]],
        *,
        asks_genre: bool,
    ) -> Example:
        """A fresh patient of a specialty, and one thing to be read off the picture."""
        case = specialty.sample(rng, self.config.difficulty)
        if asks_genre:
            others = tuple(one.GENRE for one in specialties if one is not specialty)
            reading = Reading("which kind of picture is this?", f"a {specialty.GENRE}", specialty.GENRE, others)
        else:
            reading = rng.choice(specialty.readings(case))
        wrong = rng.sample(reading.others, min(rng.randint(1, 4), len(reading.others)))
        return Example(
            patient_id=row_id,
            images=(partial(specialty.draw, case),),
            question=reading.question,
            options=(reading.label, *wrong),
            answer=reading.label,
            question_id=row_id,
            reasoning={NEUTRAL: trace(reading.text, "", reading.label)},
            tags={"question_type": "genre" if asks_genre else "reading", "modality": specialty.MODALITY},
        )

    @override
    def rows(self) -> list[tuple[Example, str, str]]:
        """Training rows (example, "neutral", completion), each once: there is no other guideline here."""
        return [(example, NEUTRAL, example.trace(NEUTRAL)) for example in self.splits["train"]]


def corpus() -> Iterator[str]:
    """Texts to train the tiny model's tokenizer on: training prompts and traces of all phantoms, and the chat's words."""
    yield from texts_of((*phantom_classes(), PerceptionMixture))
    for role in ("system", "user", "assistant"):
        yield from [f"{role}\n"] * 1000


def clinical_texts() -> frozenset[str]:
    """Every option text that is a clinical verdict in some specialty."""
    return frozenset(text for one in phantom_classes() for shares in one.PREVALENCE.values() for text in shares)


def lookup(row_id: str, rng: random.Random, vocabulary: Sequence[str]) -> Example:
    """Find an option by its text: half of the time among a real question's options, else among any two to five."""
    if rng.random() < 0.5:
        kinds = [tuple(shares) for one in phantom_classes() for shares in one.PREVALENCE.values()]
        options = rng.choice(kinds)
    else:
        options = tuple(rng.sample(vocabulary, rng.randint(2, 5)))
    answer = rng.choice(options)
    question, thought = rng.choice(LOOKUPS)
    return Example(
        patient_id=row_id,
        images=(),
        question=question.format(answer),
        options=options,
        answer=answer,
        question_id=row_id,
        reasoning={NEUTRAL: trace(thought.format(answer), "", answer)},
        tags={"question_type": "lookup", "modality": "text"},
    )
