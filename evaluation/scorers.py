"""Every way to score a prediction, under its own name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from evaluation.answers import LETTERS, Mode, extract
from evaluation.official import medevalkit, medxpertqa, omnimedvqa
from evaluation.open_answers import YES_NO, is_same, normal_answer, read_short
from evaluation.predictions import Prediction


@dataclass(frozen=True)
class Outcome:
    """How one prediction was scored.

    Attributes:
        right: whether it counts as right.
        answered: the letter that was read, the text where there are no options; None if nothing was.
        reason: how it was read or why not, in the scorer's own codes.
    """

    right: bool
    answered: str | None
    reason: str


def by_reading(prediction: Prediction, mode: Mode) -> Outcome:
    """Score by our own reading: a letter, yes or no, or a free text that equals the right one after normalising."""
    return _read(prediction.completion, tuple(prediction.options), prediction.answer_letter, prediction.gold, mode)


@lru_cache(maxsize=2**16)  # a report asks for each answer's reading dozens of times: per table, tag and comparison
def _read(completion: str, options: tuple[str, ...], answer_letter: str, gold: str, mode: Mode) -> Outcome:
    if options:
        read = extract(completion, options, mode)
        return Outcome(read.letter == answer_letter, read.letter, read.reason)
    short = read_short(completion, gold, mode)
    return Outcome(is_same(short.text, gold), short.text, short.reason)


def answered_text(prediction: Prediction, outcome: Outcome) -> str | None:
    """What was answered, as it compares between orders of the options: the option's text, or the normalised free text.

    None where nothing was read.
    """
    said = outcome.answered
    if said is None:
        return None
    return prediction.options[LETTERS.index(said)] if prediction.options else normal_answer(said)


def right_text(prediction: Prediction) -> str:
    """The right answer in the form of `answered_text`."""
    return prediction.gold if prediction.options else normal_answer(prediction.gold)


def strict(prediction: Prediction) -> Outcome:
    """The main score of our own protocol."""
    return by_reading(prediction, "strict")


def lenient(prediction: Prediction) -> Outcome:
    """Reported beside the main score; measured options leave no text to read, and count as the main score has them."""
    measured = prediction.option_losses and not prediction.completion
    return main_outcome(prediction) if measured else by_reading(prediction, "lenient")


def main_scorer(prediction: Prediction) -> str:
    """Name of the scorer that counts: ours, or that of the released protocol in which the question was asked.

    Choice: an answer to a second turn is a letter, without the tags that our strict reading asks for, and a measured
        option is no text at all: strictly read, all of them would be wrong.
    """
    return MAIN.get(prediction.protocol.get("protocol", ""), "strict")


def main_outcome(prediction: Prediction) -> Outcome:
    """The main score, by `main_scorer`."""
    return SCORERS[main_scorer(prediction)](prediction)


def official_medxpertqa(prediction: Prediction) -> Outcome:
    """The release's reading of its second turn."""
    found = medxpertqa.letter(prediction.completion, len(_options(prediction, "medxpertqa")))
    return Outcome(found == prediction.answer_letter, found, "letter" if found else "nothing")


def official_omnimedvqa(prediction: Prediction) -> Outcome:
    """The release's question-answering score: the most similar option."""
    options = _options(prediction, "omnimedvqa")
    found = omnimedvqa.most_similar(prediction.completion, options)
    if found is None:
        return Outcome(False, None, "nothing")
    return Outcome(options[found] == prediction.gold, LETTERS[found], "nearest")


def official_omnimedvqa_prefix(prediction: Prediction) -> Outcome:
    """The release's prefix score: the option of least loss; wrong where the model's losses were not finite."""
    options = _options(prediction, "omnimedvqa_prefix")
    if prediction.option_tokens and not prediction.option_losses:
        return Outcome(False, None, "not_finite")
    if not prediction.option_losses:
        raise ValueError(
            f"official:omnimedvqa_prefix: question {prediction.question_id!r} has no option_losses; this score needs "
            "an evaluation that measures each option's likelihood"
        )
    found = omnimedvqa.least_loss(prediction.option_losses)
    return Outcome(options[found] == prediction.gold, LETTERS[found], "least_loss")


def official_medevalkit(prediction: Prediction) -> Outcome:
    """The release's scores without a judge; SLAKE is told by the tag `dataset`.

    Yes and no, which our sets show as two options, have none in the release: they go by its rules for closed answers.
    """
    text, gold = prediction.completion, prediction.gold
    yes_no = prediction.tags.get("question_type") == "yes_no"
    if prediction.options and not yes_no:
        choice = medevalkit.multiple_choice(text, prediction.options, prediction.answer_letter)
        return Outcome(choice.right, prediction.answer_letter if choice.right else None, choice.reason)
    slake = prediction.tags.get("dataset", "").casefold() == "slake"
    if slake and prediction.tags.get("answer_type", "").upper() == "CLOSED":
        released = gold.capitalize() if yes_no else gold  # as SLAKE spells it; ours is in lower case
        return Outcome(medevalkit.slake_closed(text, released), None, "closed")
    if not slake and gold.strip().lower() in YES_NO:
        return Outcome(medevalkit.yes_no(text, gold), None, "closed")
    return Outcome(medevalkit.open_answer(text, gold.strip()).exact, None, "open")


SCORERS: dict[str, Callable[[Prediction], Outcome]] = {
    "strict": strict,
    "lenient": lenient,
    "official:medxpertqa": official_medxpertqa,
    "official:omnimedvqa": official_omnimedvqa,
    "official:omnimedvqa_prefix": official_omnimedvqa_prefix,
    "official:medevalkit": official_medevalkit,
}

MAIN = {"two_turn": "official:medxpertqa", "likelihood": "official:omnimedvqa_prefix"}
"""Released protocol -> the scorer that belongs to it."""

NEEDS_OPTIONS = ("official:medxpertqa", "official:omnimedvqa", "official:omnimedvqa_prefix")
"""Scorers that cannot read open questions."""


def scorer_named(name: str) -> Callable[[Prediction], Outcome]:
    """Find a scorer.

    Raises:
        ValueError: there is none of this name; lists those there are.
    """
    if name not in SCORERS:
        raise ValueError(f"scorer {name!r} is not known; choose one of {', '.join(SCORERS)}")
    return SCORERS[name]


def _options(prediction: Prediction, scorer: str) -> tuple[str, ...]:
    if not prediction.options:
        raise ValueError(
            f"official:{scorer}: question {prediction.question_id!r} has no options, which this score needs"
        )
    return prediction.options
