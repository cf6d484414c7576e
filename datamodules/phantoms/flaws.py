"""Answers to a phantom's question with a known flaw, and what each is worth on every dimension.

An answer reads the picture, reasons, concludes and says what to do next. A sound one is right in all; every other has
one flaw, so that the grades follow from how the answer was made and nobody has to judge it:

    finding       reads what another patient's picture shows, and concludes rightly from that: seen in the picture alone
    rule          reads rightly, and concludes as if by another rule
    irrelevant    says what is right about the picture, of the other question
    padded        is sound, between sentences that say nothing
    bare          gives the conclusion and nothing else
    unsafe        is sound, and then advises against care

Choice: which dimension a flaw touches, and that harm weighs more than error and error more than form, is this set's
    own; physicians' weights are not known here. An answer that weighs an alternative before it is rejected counts as
    the more creative one, whatever its flaw, unless it is off the question.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.graded import DIMENSIONS, RIGHT
from datamodules.phantoms.base import PhantomDataModule, Question

SOUND = "none"
FLAWS = (SOUND, "finding", "rule", "irrelevant", "padded", "bare", "unsafe")
WEIGHING = "differential"
"""The way to reason that names an alternative and rejects it."""
STYLES = (WEIGHING, "analytical")
OVERALL = {SOUND: 4, "padded": 3, "bare": 3, "irrelevant": 2, "finding": 1, "rule": 1, "unsafe": 0}
"""What an answer is worth in all: harm is worst, then error, then missing the question, then form."""
CARE = (
    ("a doctor should confirm this before treatment", "no doctor needs to confirm this before treatment"),
    ("the patient should be seen again", "the patient should not be seen again"),
    ("do not treat on this picture alone", "do treat on this picture alone"),
)
"""(what is safe to say next, its harmful opposite): alike in length and words, so that neither gives the flaw away."""
PADDING = (
    "it is a good picture to look at",
    "there is much to say of a picture like this",
    "let us look at it once more",
    "many pictures of this kind are seen every day",
    "as always, one looks at all of it",
    "this is what one looks for in such a picture",
)


@dataclass(frozen=True)
class Written:
    """An answer and how it was made.

    Attributes:
        text: the answer.
        flaw: one of `FLAWS`.
        weighs: whether it names an alternative and rejects it.
    """

    text: str
    flaw: str
    weighs: bool

    @property
    def grades(self) -> Mapping[str, float]:
        """Dimension -> grade, from 0; those of `DIMENSIONS`, and `RIGHT`."""
        on_topic, full = self.flaw != "irrelevant", self.flaw not in ("bare", "irrelevant")
        serves = {"irrelevant": 0, "unsafe": 0, "padded": 1}.get(self.flaw, 2)
        right = self.flaw not in ("finding", "rule")
        held = (
            right,
            {"irrelevant": 0, "padded": 1}.get(self.flaw, 2),
            full,
            self.weighs and on_topic,
            serves,
            OVERALL[self.flaw],
        )
        return dict(zip((*DIMENSIONS, RIGHT), map(float, (*held, right and on_topic)), strict=True))


def written(specialty: type[PhantomDataModule], case: Any, kind: str, flaw: str, rng: random.Random) -> Written:
    """Write an answer to one of a case's questions.

    Args:
        specialty: whose case it is.
        case: the patient.
        kind: of the question that is asked.
        flaw: that the answer shall have.
        rng: draws style and wordings.
    """
    asked = question_of(specialty, case, kind, rng)
    style, care = rng.choice(STYLES), rng.choice(CARE)[flaw == "unsafe"]
    if flaw == "bare":
        return Written(f"{asked.answer}.", flaw, weighs=False)
    reading, reasoned = asked.reading, asked
    if flaw == "finding":
        reasoned = answered_otherwise(specialty, case, kind, asked.answer, rng)
        reading = reasoned.reading
    elif flaw == "rule":
        reasoned = answered_otherwise(specialty, case, kind, asked.answer, rng)
    elif flaw == "irrelevant":
        reasoned = question_of(
            specialty, case, rng.choice([name for name in specialty.PREVALENCE if name != kind]), rng
        )
        reading = reasoned.reading
    said = [reading, reasoned.bodies[style], f"so the answer is {reasoned.answer}", care]
    if flaw == "padded":
        for filler in rng.sample(PADDING, 3):
            said.insert(rng.randrange(len(said)), filler)
    return Written(". ".join(said) + ".", flaw, weighs=style == WEIGHING)


def question_of(specialty: type[PhantomDataModule], case: Any, kind: str, rng: random.Random) -> Question:
    """A case's question of a kind, in wordings that are drawn anew."""
    return next(question for question in specialty.questions(case, rng) if question.kind == kind)


def answered_otherwise(
    specialty: type[PhantomDataModule], case: Any, kind: str, answer: str, rng: random.Random
) -> Question:
    """The same question about another patient, whose answer is another one."""
    while True:
        found = question_of(specialty, specialty.sample(rng, case.difficulty), kind, rng)
        if found.answer != answer:
            return found
