"""Rows that a base learns to reason on: what must be known stands in the question, and no rule is a specialty's.

Names and numbers are drawn at random for every row, so that nothing is left to be learnt but how to use what is
stated, in the answer format, and to find the letter of what was found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL

MOST_OPTIONS = 5
NUMBERS = (1, 99)
OWN_WORDS = frozenset(
    "answer below from how is least left list minus most much not on or option plus say so the which".split()
)
"""Words of these questions, which no name may have."""
LOOKUPS = ("which option says {0}?", "find the option {0}.", "which letter stands for {0}?", "pick {0} from the list.")
CHOICES = ("pick any from the list.", "choose any option.", "which letter do you choose?", "say any of these.")

Drawn = tuple[str, Sequence[str], str, str]
"""Question, options, the right one, and what is thought before "so the answer is"."""


def row(row_id: str, kind: str, drawn: Drawn) -> Example:
    """One question without a picture."""
    question, options, answer, thought = drawn
    return Example(
        patient_id=row_id,
        images=(),
        question=question,
        options=tuple(options),
        answer=answer,
        question_id=row_id,
        reasoning={NEUTRAL: f"{thought}. so the answer is {answer}."},
        tags={"question_type": kind, "modality": "text"},
    )


def names(rng: random.Random, words: Sequence[str], count: int, most_words: int = 1) -> list[str]:
    """Distinct names of one to `most_words` words, none of which begins another."""
    found: list[str] = []
    while len(found) < count:
        name = " ".join(rng.sample(words, rng.randint(1, most_words)))
        if not any(name.startswith(other) or other.startswith(name) for other in found):
            found.append(name)
    return found


def finding(rng: random.Random, options: Sequence[str]) -> Drawn:
    """Find an option by its text."""
    answer = rng.choice(options)
    return rng.choice(LOOKUPS).format(answer), options, answer, f"it says {answer}"


def letters(rng: random.Random, words: Sequence[str], most_words: int = 1) -> Drawn:
    """Choose any of two to five names that mean nothing, and find its letter.

    The question does not say which, so that the letter can only be that of what was thought.
    """
    options = names(rng, words, rng.randint(2, MOST_OPTIONS), most_words)
    answer = rng.choice(options)
    return rng.choice(CHOICES), options, answer, f"it says {answer}"


def stated_rule(rng: random.Random, words: Sequence[str]) -> Drawn:
    """A rule of one or two cut-offs stands in the question, and a number to put through it."""
    cuts = sorted(rng.sample(range(NUMBERS[0] + 1, NUMBERS[1]), rng.choice((1, 2))))
    below, *others = bands = names(rng, words, len(cuts) + 1)
    number = rng.randint(*NUMBERS)
    passed = [cut for cut in cuts if number >= cut]
    answer = bands[len(passed)]
    rule = ", ".join(
        [f"{below} below {cuts[0]:02d}", *(f"{b} from {c:02d}" for b, c in zip(others, cuts, strict=True))]
    )
    thought = f"{number:02d} is from {passed[-1]:02d} on" if passed else f"{number:02d} is below {cuts[0]:02d}"
    return f"{rule}. which is {number:02d}?", rng.sample(bands, len(bands)), answer, thought


def comparison(rng: random.Random, words: Sequence[str]) -> Drawn:
    """Which of two or three things has most, or least."""
    things = names(rng, words, rng.choice((2, 3)))
    numbers = rng.sample(range(NUMBERS[0], NUMBERS[1] + 1), len(things))
    most = rng.random() < 0.5
    best = (max if most else min)(numbers)
    asked = "most" if most else "least"
    listed = ", ".join(f"{thing} {number:02d}" for thing, number in zip(things, numbers, strict=True))
    return f"{listed}. which has {asked}?", things, things[numbers.index(best)], f"{asked} is {best:02d}"


def exclusion(rng: random.Random, words: Sequence[str]) -> Drawn:
    """All options but one are ruled out."""
    options = names(rng, words, rng.randint(2, 4))
    answer = rng.choice(options)
    others = [f"not {option}" for option in rng.sample(options, len(options)) if option != answer]
    return f"{', '.join(others)}. which is left?", options, answer, f"{', '.join(others)}, left is {answer}"


def arithmetic(rng: random.Random, words: Sequence[str]) -> Drawn:
    """A sum or a difference of two stated numbers, of at most two digits."""
    del words
    total = rng.randint(2, NUMBERS[1])
    part = rng.randint(1, total - 1)
    a, sign, b, result = (part, "plus", total - part, total)
    if rng.random() < 0.5:
        a, sign, b, result = (total, "minus", part, total - part)
    near = [n for step in (1, -1, 10, -10, 2) if NUMBERS[0] <= (n := result + step) <= NUMBERS[1]]
    options = [f"{n:02d}" for n in (result, *rng.sample(near, min(len(near), rng.choice((1, 2, 3)))))]
    question = f"how much is {a:02d} {sign} {b:02d}?"
    return question, rng.sample(options, len(options)), f"{result:02d}", f"{a:02d} {sign} {b:02d} is {result:02d}"


REASONING: dict[str, Callable[[random.Random, Sequence[str]], Drawn]] = {
    "rule": stated_rule,
    "comparison": comparison,
    "exclusion": exclusion,
    "arithmetic": arithmetic,
}
"""Question type -> what draws such a row."""
