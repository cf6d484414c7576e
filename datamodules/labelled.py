"""Options that stand in one text behind their letters or numbers: `A) lung B) liver`, `1. lung; 2. liver`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datamodules.batch import LETTERS, BadExampleError
from datamodules.rows import shortened

BRACKET, DOT, COLON = (rf"(?:^|\s)([A-J]){re.escape(end)}\s+" for end in ").:")
SPACED = (BRACKET, DOT, COLON)
"""Styles of marks that white space sets apart, as releases have them."""
EVERY = (
    *(r"(?:^|[\s;,|/])([A-J])\)\s*", r"(?:^|[\s;,|/])([A-J])[.．]\s+", r"(?:^|[\s;,|/])([A-J])[:：]\s*"),
    *(r"(?:^|[\s;,|/])[(\[]([A-J])[)\]]\s*", r"(?:^|[\s;,|/])([A-J])\s[-–]\s"),
    *(r"(?:^|[\s;,|/])([a-j])\)\s*", r"(?:^|[\s;,|/])[(\[]([a-j])[)\]]\s*"),
    *(r"(?:^|[\s;,|/])(10|[1-9])\)\s*", r"(?:^|[\s;,|/])(10|[1-9])\.\s+", r"(?:^|[\s;,|/])[(\[](10|[1-9])[)\]]\s*"),
)
"""Styles of marks that people write into a cell."""
BETWEEN = " \t\r\n;,|/"
"""What may stand between two options, and is part of neither."""


def stem_and_options(text: str, styles: Sequence[str] = SPACED) -> tuple[str, dict[str, str]]:
    """Cut "stem A) one B) two" into stem and options.

    Marks of one style count, that of the longest run; it begins at the last A that B follows, since a stem may hold
    letters of its own.

    Args:
        text: with the options in it.
        styles: patterns of marks, each with its letter or number in a group.

    Raises:
        BadExampleError: there are no marks A, B, … in this order.

    Examples:
        >>> stem_and_options("What is shown? A) lung B) liver, part A) of it")
        ('What is shown?', {'A': 'lung', 'B': 'liver, part A) of it'})
        >>> stem_and_options("What did influenza A. show? A) lung B) liver")
        ('What did influenza A. show?', {'A': 'lung', 'B': 'liver'})
    """
    runs = (marked(text, style) for style in styles)
    marks = max(runs, key=lambda held: (len(held), [match.start() for match in held]))
    if not marks:
        raise BadExampleError(f"problem is {shortened(text)}, expected options as A) …, B) …")
    ends = [match.start() for match in marks[1:]] + [len(text)]
    texts = [text[match.end() : end].strip() for match, end in zip(marks, ends, strict=True)]
    return text[: marks[0].start()].strip(), dict(zip(LETTERS, texts, strict=False))


def labelled(text: str) -> tuple[str, dict[str, str]]:
    """The same of a cell that people wrote: every style of marks, separators between options set aside.

    Raises:
        BadExampleError: there are no marks, or marks of two styles make runs of one length.

    Examples:
        >>> labelled("(a) lung; (b) liver")
        ('', {'A': 'lung', 'B': 'liver'})
        >>> labelled("Where? 1. lung 2. liver")
        ('Where?', {'A': 'lung', 'B': 'liver'})
    """
    runs = sorted((len(marked(text, style)) for style in EVERY), reverse=True)
    if runs[0] and runs[0] == runs[1]:
        raise BadExampleError(
            f"options are {shortened(text, 200)}: two kinds of marks would do; write them into columns of their own"
        )
    stem, options = stem_and_options(text, EVERY)
    return stem, {letter: one.strip(BETWEEN) for letter, one in options.items()}


def marked(text: str, style: str) -> list[re.Match[str]]:
    """The marks A, B, … of one style, from the last A that B follows at once; none where there is no such A."""
    held = list(re.finditer(style, text))
    places = [place_of(match[1]) for match in held]
    first = max((at for at in range(len(held) - 1) if places[at : at + 2] == [0, 1]), default=len(held))
    marks: list[re.Match[str]] = []
    for match, place in zip(held[first:], places[first:], strict=True):
        if len(marks) < len(LETTERS) and place == len(marks):
            marks.append(match)
    return marks


def place_of(mark: str) -> int:
    """Which option a letter or a number marks, from 0."""
    return int(mark) - 1 if mark.isdecimal() else LETTERS.index(mark.upper())
