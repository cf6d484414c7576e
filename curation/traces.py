"""Whether a teacher's reply is a trace to learn from: the gates of the rewards, and what imitation needs besides."""

from __future__ import annotations

import re

from datamodules.batch import LETTERS, Example
from evaluation.answers import extract, thinking_of
from lightning_modules.rewards.adherence import adherence
from lightning_modules.rewards.gates import gates
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rewards.reading import conclusion, mentions, normal, option_pattern

GATES = ("too_long", "format", "wrong_answer", "empty_thinking", "echo", "stuffing", "no_conclusion", "contradiction",
         "names_letters", "off_guideline")  # fmt: skip
"""In the order in which they are asked; a trace is counted under the first that it fails."""


def trace_fault(text: str, example: Example, guideline: Guideline, *, min_adherence: float, max_characters: int) -> str:
    """The first gate that a reply fails; empty if it passes all.

    Args:
        text: the completion as it came.
        example: a closed question.
        guideline: whose instruction the prompt carried.
        min_adherence: in [0, 1].
        max_characters: of the completion.

    Returns:
        One of `GATES`, behind "format" and "format:" the strict reader's reason; or an empty text.

    Choice: stricter than the reward in three ways. The reasoning must conclude something, namely the answered option
        and no other, and not take it back: rewards let a reasoning pass that names none. It must not call options by
        their letters, which are drawn anew when the set is read. And it must follow its guideline by at least
        `min_adherence`.
    """
    if len(text) > max_characters:
        return "too_long"
    read = extract(text, example.options)
    if read.letter is None:
        return f"format:{read.reason}"
    if read.letter != example.letter:
        return "wrong_answer"
    gate = gates(text, example.question, example.options, guideline.instruction)
    if gate is not None:
        return gate
    thinking = normal(thinking_of(text))
    named = mentions(thinking, example.options)
    end, right = conclusion(thinking, named), example.options.index(example.answer)
    if end is None:
        return "no_conclusion"
    taken_back = any(m.start >= end.end and m.rejected == (m.option == right) for m in named)
    if end.options != {right} or taken_back:
        return "contradiction"
    if calls_by_letter(thinking_of(text), example.options):
        return "names_letters"
    scored = adherence(thinking_of(text), example.options, example.answer, guideline)
    return "off_guideline" if scored.score < min_adherence else ""


def calls_by_letter(thinking: str, options: tuple[str, ...]) -> bool:
    """Whether a reasoning names an option as "option b", "(b)", or by a capital that ends a sentence or a clause."""
    pattern = re.compile(option_pattern(options)[0].pattern, re.IGNORECASE)
    alone = rf"(?<![\w'-])[{LETTERS[: len(options)]}](?=\s*(?:[.,;:!?)]|$))"
    by_letter = any(match[pattern.groups] for match in pattern.finditer(thinking))
    return by_letter or bool(re.search(alone, pattern.sub(" ", thinking), re.MULTILINE))
