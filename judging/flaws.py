"""How well the reader of reasons reads: traces with known flaws, made by the generators, and what it finds in them.

A sound trace is the generator's own. Each flaw changes one thing of it:

- wrong finding: the readings are another case's, which differ in what the rule asks for; all else is as it was;
- missing finding: the readings are left out, beside an argument that restates none of them;
- wrong rule: the argument is another one, between the true readings and the true answer: that of a case with another
  answer, or, in the clinic, that of a strategy which was not asked for;
- wrong conclusion: readings and argument are true, and another option is concluded and answered;
- contradiction: all is true, and another option is answered than is concluded.

Circular in part: the reader knows the generators' sentences. What this shows is that it tells the flaws apart, and that
it sees none where there is none; how much of a model's own words it reads is told beside every model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from datamodules.batch import LETTERS, Example
from datamodules.phantoms.base import phantom_classes
from datamodules.phantoms.clinic import Clinic
from datamodules.phantoms.truth import KnowsTruth, Truth, Value
from evaluation.clustered import clustered_wilson
from evaluation.predictions import Prediction
from evaluation.report_files import markdown, percent
from judging.by_rule import Step, read_by_rule, stated, steps_of
from judging.reasoning import Reasoning
from lightning_modules.rewards.evidence import read_evidence

FLAWS = ("sound", "wrong finding", "missing finding", "wrong rule", "wrong conclusion", "contradiction")
TRIES = 200
"""Other cases that are looked at for one which differs as a flaw needs it."""


@dataclass(frozen=True)
class Seen:
    """One thing that the reader says of a trace.

    Attributes:
        says: of what it read.
        true_of: the flaws of which it is true.
        asked_of: those of which it is asked.
    """

    says: Callable[[Reasoning], bool]
    true_of: tuple[str, ...]
    asked_of: tuple[str, ...] = FLAWS


NO_ARGUMENT = tuple(flaw for flaw in FLAWS if flaw != "wrong rule")
"""Another case's argument may state that case's findings too."""
NO_READINGS = tuple(flaw for flaw in FLAWS if flaw != "wrong finding")
"""An argument may happen to fit readings that it was not made for."""
SEEN: Mapping[str, Seen] = {
    "a finding is wrong": Seen(lambda one: not all(one.named), ("wrong finding",), NO_ARGUMENT),
    "a finding is missing": Seen(lambda one: not all(one.needed) and all(one.named), ("missing finding",)),
    "the steps do not follow": Seen(lambda one: one.follows is False, ("wrong rule", "wrong conclusion"), NO_READINGS),
    "the conclusion is another": Seen(lambda one: one.agrees is False, ("contradiction",)),
    "right for a wrong reason": Seen(
        lambda one: one.right and not one.right_reason, ("wrong finding", "missing finding"), NO_ARGUMENT
    ),
}


@dataclass(frozen=True)
class Parts:
    """A worked trace: what was read, how it is argued, and what is concluded."""

    readings: str
    argument: str
    answer: str

    def completion(self, answered: str = "") -> str:
        """The trace with an answer: by default, what it concludes."""
        said = ". ".join(part for part in (self.readings, self.argument) if part)
        return f"<think>{said}. so the answer is {self.answer}.</think><answer>{answered or self.answer}</answer>"


@dataclass(frozen=True)
class Made:
    """A trace whose flaw is known, and what was read of it."""

    flaw: str
    patient: tuple[str, str]
    reading: Reasoning


def validation(patients: int = 60, seed: int = 0) -> str:
    """Precision and recall of all that the reader says, over all generated sets, as Markdown.

    Args:
        patients: of each set, with two questions each.
        seed: of the flaws.
    """
    classes = (*phantom_classes(), Clinic)
    made = [one for cls in classes for one in made_traces(cls(cls.Config(n_patients=patients)), seed)]
    rows = [row(name, seen, made) for name, seen in SEEN.items()]
    counts = ", ".join(f"{sum(one.flaw == flaw for one in made)} {flaw}" for flaw in FLAWS)
    unread = sum(bool(one.reading.unread) for one in made)
    table = markdown(("the reader says", "true of", "said of", "precision, %", "recall, %"), rows, names=1)
    return f"{table}\n\n{len(made)} made traces: {counts}. Steps not read in {unread}. Intervals are 95 %, by patient."


def row(name: str, seen: Seen, made: Sequence[Made]) -> list[str]:
    """One line of the table."""
    asked = [
        (seen.says(one.reading), one.flaw in seen.true_of, one.patient) for one in made if one.flaw in seen.asked_of
    ]

    def share(pairs: Sequence[tuple[bool, tuple[str, str]]]) -> str:
        hits = [hit for hit, _ in pairs]
        return percent(sum(hits) / len(hits), *clustered_wilson(hits, [who for _, who in pairs])) if pairs else "-"

    true, said = ([one for one in asked if one[index]] for index in (1, 0))
    precision, recall = share([(t, who) for _, t, who in said]), share([(s, who) for s, _, who in true])
    return [name, str(len(true)), str(len(said)), precision, recall]


def made_traces(data: KnowsTruth, seed: int = 0) -> Iterator[Made]:
    """Every question of a set with a sound trace and with each flaw that it can have.

    Args:
        data: a generated set.
        seed: of the choices.
    """
    examples = list(data.examples())
    truths = {example.question_id: data.truth(example) for example in examples}
    for example in examples:
        rng = random.Random(f"{seed} {example.question_id}")
        others = [one for one in examples if one.tags["question_type"] == example.tags["question_type"]]
        others = rng.sample(others, min(TRIES, len(others)))
        for flaw in FLAWS:
            completion = flawed(flaw, example, others, truths, rng)
            if completion is not None:
                item = answered(example, completion)
                reading = read_by_rule(item, truths[example.question_id], data.bodies())
                yield Made(flaw, (type(data).__name__, example.patient_id), reading)


def flawed(
    flaw: str, example: Example, others: Sequence[Example], truths: Mapping[str, Truth], rng: random.Random
) -> str | None:
    """A completion with one flaw; None where this question cannot have it.

    Args:
        flaw: one of `FLAWS`.
        example: the question.
        others: questions of its kind.
        truths: question id -> what is known.
        rng: draws.
    """
    truth, kind = truths[example.question_id], example.tags["question_type"]
    asked_for = [kind] if kind in example.reasoning else list(example.reasoning)
    name = rng.choice(asked_for)
    sound = parts(example, name, truth)
    if flaw == "wrong finding":
        return first(
            replace(sound, readings=parts(one, next(iter(one.reasoning)), truths[one.question_id]).readings)
            for one in others
            if differs(truths[one.question_id], truth)
        )
    if flaw == "missing finding":
        silent = (replace(parts(example, each, truth), readings="") for each in asked_for)
        return first(
            one for one in silent if not set(truth.needed) & dict(read(one.argument, example, truth)[0]).keys()
        )
    if flaw == "wrong rule":
        sources = [(example, each) for each in example.reasoning if each not in asked_for]
        sources += [(one, name) for one in others if one.answer != example.answer and name in one.reasoning]
        arguments = (parts(one, each, truths[one.question_id]).argument for one, each in sources)
        own = truth.argue({}).bodies
        return first(replace(sound, argument=argument) for argument in arguments if argument not in own)
    wrong = rng.choice([option for option in example.options if option != example.answer])
    if flaw == "wrong conclusion":
        return replace(sound, answer=wrong).completion()
    return sound.completion(wrong if flaw == "contradiction" else "")


def first(found: Iterable[Parts]) -> str | None:
    """The completion of the first of several; None where there is none."""
    return next((one.completion() for one in found), None)


def differs(other: Truth, truth: Truth) -> bool:
    """Whether another case's readings are wrong of this one in something that its rule asks for."""
    return not all(truth.sayings[name].agrees(other.findings[name], truth.findings[name]) for name in truth.needed)


def parts(example: Example, guideline: str, truth: Truth) -> Parts:
    """A worked trace in its parts; the sentences at its beginning that say nothing but findings are readings."""
    *said, _ = example.reasoning[guideline].removesuffix(".").split(". ")
    count = 0
    while count < len(said) and not read(said[count], example, truth)[1]:
        count += 1
    return Parts(". ".join(said[:count]), ". ".join(said[count:]), example.answer)


def read(text: str, example: Example, truth: Truth) -> tuple[list[tuple[str, Value]], list[Step]]:
    """The findings that a text states, and the steps that it takes."""
    evidence = read_evidence(text, example.options, 0, None)
    return list(stated(evidence, truth)), list(steps_of(evidence, truth, example.options))


def answered(example: Example, completion: str) -> Prediction:
    """A completion as the answer of a model."""
    return Prediction(
        model="made",
        specialty="made",
        question_id=example.question_id,
        patient_id=example.patient_id,
        guideline="neutral",
        options=example.options,
        answer_letter=LETTERS[example.options.index(example.answer)],
        completion=completion,
    )
