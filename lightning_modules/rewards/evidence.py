"""The part of a reasoning that led to its conclusion, read once for all criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_modules.rewards.findings import Reference
from lightning_modules.rewards.reading import Conclusion, Mention, conclusion, mentions, normal, words


@dataclass(frozen=True)
class Evidence:
    """A reasoning as criteria see it.

    Attributes:
        text: normal text up to the end of the concluding sentence.
        n_words: words of the whole reasoning.
        mentions: options named in `text`.
        concluded: options that the concluding sentence names.
        answer: index of the answered option.
        reference: what is to be seen; None where the example has no worked reasoning.
    """

    text: str
    n_words: int
    mentions: tuple[Mention, ...]
    concluded: frozenset[int]
    answer: int
    reference: Reference | None = None


def read_evidence(thinking: str, options: Sequence[str], answer: int, known: Reference | None) -> Evidence:
    """Read a reasoning up to its conclusion.

    Args:
        thinking: without tags.
        options: the texts in the order shown.
        answer: index of the answered option.
        known: of the example.
    """
    text = normal(thinking)
    found = mentions(text, options)
    end = conclusion(text, found) or Conclusion(frozenset(), len(text))
    named = tuple(mention for mention in found if mention.end <= end.end)
    return Evidence(text[: end.end], len(words(text)), named, end.options, answer, known)
