"""What makes a completion worthless however right its letter is: no reasoning, the prompt given back, filler, a lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from evaluation.answers import LETTERS, extract, thinking_of
from evaluation.open_answers import read_short
from lightning_modules.rewards.reading import normal, option_pattern, words
from lightning_modules.rewards.verdict import contradicts

Gate = Literal[
    "answer_in_thinking",  # an answer tag inside the thinking
    "unparsed",  # any other reason for which the strict reading finds no letter
    "empty_thinking",  # fewer than `MIN_WORDS` distinct words, or only the options' texts
    "echo",  # the thinking is mostly a copy of the prompt
    "stuffing",  # words or phrases repeat, or signal words stand in a row without content
    "contradiction",  # the thinking concludes another option than the one answered, or two
]

MIN_WORDS = 3
"""Distinct words that a reasoning must have."""
MIN_OWN_WORDS = 2
"""Distinct words of it that are not part of an option's text."""
ECHO_N, ECHO_SHARE = 4, 0.4
"""A reasoning echoes if more than this share of its n-grams are the prompt's, the options' texts set aside."""
WINDOW, DISTINCT_SHARE = 40, 0.4
"""In no window of this many words may the share of distinct words fall below this."""
REPEAT_N, REPEAT_SHARE = 5, 0.3
"""A reasoning repeats itself if more than this share of its n-grams occurred before."""
ROW_PAIRS, ROW_SHARE = 3, 0.4
"""Signal words are stuffed if at least so many follow directly on another, and this share of them does."""

SIGNALS = frozenset(
    "because therefore thus hence since consequently implies unlikely excluded rejected fits supports favours versus "
    "differential candidates typical classic pattern recognition prior posterior likelihood odds probability percent "
    "bayes bayesian pathophysiology mechanism causal analytical intuitive consistent evidence "
    "diagnosis".split()
)

OPTION = "\N{WHITE SQUARE}"


def gates(completion: str, question: str, options: Sequence[str], instruction: str, gold: str = "") -> Gate | None:
    """Name the first gate that a completion fails, None if it passes all; linear in the completion's length.

    Args:
        completion: as generated.
        question: the stem, without options.
        options: the texts in the order shown; none for a short answer, whose reasoning cannot be told to contradict it.
        instruction: the guideline's sentence in the prompt; may be empty.
        gold: the right short answer, where there are no options; it decides how the answer is read.

    Choice: the thresholds are ours; every worked trace of the phantom data sets passes them.
    """
    answer, reason = answered(completion, options, gold)
    if answer is None:
        return "answer_in_thinking" if reason == "answer_in_thinking" else "unparsed"
    thinking = normal(thinking_of(completion))
    own = words(option_pattern(tuple(options) or (answer,))[0].sub(" ", thinking))
    said = words(thinking)
    if len(set(said)) < MIN_WORDS or len(set(own)) < MIN_OWN_WORDS:
        return "empty_thinking"
    if echoes(thinking, question, options, instruction):
        return "echo"
    if repeats(said) or in_a_row(said):
        return "stuffing"
    return "contradiction" if options and contradicts(thinking, options, LETTERS.index(answer)) else None


def answered(completion: str, options: Sequence[str], gold: str) -> tuple[str | None, str]:
    """(what a completion strictly answers, how it was read or why not): a letter, or without options a short text."""
    if options:
        read = extract(completion, options)
        return read.letter, read.reason
    short = read_short(completion, gold)
    return short.text, short.reason


def echoes(thinking: str, question: str, options: Sequence[str], instruction: str) -> bool:
    """Whether a normal text is mostly a copy of the prompt; options count as one word, since reasoning names them."""
    lettered = " ".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    said = _masked(thinking, options)
    n = min(ECHO_N, len(said))
    known = {
        gram
        for source in (f"{question} {lettered} {instruction}", f"{question} {instruction}")
        for gram in _grams(_masked(normal(source), options), n)
    }
    grams = _grams(said, n)
    return bool(grams) and sum(gram in known for gram in grams) > ECHO_SHARE * len(grams)


def repeats(said: Sequence[str]) -> bool:
    """Whether some window has too few distinct words, or too many n-grams occurred before."""
    for start in range(0, max(1, len(said) - WINDOW // 2), WINDOW // 2):
        window = said[start : start + WINDOW]
        if len(window) >= 8 and len(set(window)) < DISTINCT_SHARE * len(window):
            return True
    grams = _grams(said, REPEAT_N)
    return len(grams) >= 8 and len(grams) - len(set(grams)) > REPEAT_SHARE * len(grams)


def in_a_row(said: Sequence[str]) -> bool:
    """Whether signal words such as "because" and "posterior" follow on each other instead of on what they are about."""
    places = [i for i, word in enumerate(said) if word in SIGNALS]
    pairs = sum(second == first + 1 for first, second in pairwise(places))
    return pairs >= ROW_PAIRS and pairs >= ROW_SHARE * len(places)


def _masked(text: str, options: Sequence[str]) -> list[str]:
    """Words, with every option's text replaced by one mark."""
    if not options:
        return words(text)
    pattern, _ = option_pattern(tuple(options))
    pieces, last = [], 0
    for match in pattern.finditer(text):
        pieces += [*words(text[last : match.start()]), OPTION]
        last = match.end()
    return pieces + words(text[last:])


def _grams(said: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(said[i:] for i in range(n)), strict=False)) if n else []
