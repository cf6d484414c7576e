"""Options and right answers in the forms in which sets are released."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from datamodules.batch import LETTERS, BadExampleError
from datamodules.rows import shortened
from datamodules.spelling import plain

MARKED = re.compile(r"\s*(?:([A-J])\s*([:.)、．])|\(([A-J])(\)))\s*")
NAME = re.compile(r"[A-J]\. ?[a-z]")
"""A dot before a small letter may end an abbreviation, as in B. fragilis; a colon or a bracket does not."""


def lettered(options: Any) -> dict[str, str]:
    """Options as letter -> text, from any released form: a list of texts, a mapping, or a list of {letter, content}.

    Letters that stand there are those of the options, in whatever order they come: keys, `letter`, or marks at the
    beginning of every text of a list ("B) liver", "A) lung").

    Raises:
        BadExampleError: another form, or letters that are not A, B, C, …
    """
    if isinstance(options, list) and all(isinstance(item, str) for item in options):
        options = by_marks(options)
    elif isinstance(options, list) and all(isinstance(item, dict) for item in options):
        letters = [item.get("letter") for item in options]
        distinct = all(isinstance(letter, str) for letter in letters) and len(set(letters)) == len(letters)
        options = {item["letter"]: item.get("content") for item in options} if distinct else letters
    texts = isinstance(options, dict) and all(isinstance(text, str) for text in options.values())
    if not texts or len(options) < 2 or set(options) != set(LETTERS[: len(options)]):
        raise BadExampleError(f"options are {shortened(options)}, expected 2 to {len(LETTERS)} texts A, B, C, …")
    return {letter: options[letter].strip() for letter in LETTERS[: len(options)]}


def by_marks(texts: Sequence[str]) -> dict[str, str]:
    """A list of options by the letters that they are marked with, else by their places.

    Marks count where every text has one of the same style and together they are A, B, C, … "B. fragilis", "E. coli"
    are names.

    Raises:
        BadExampleError: marks are out of order and may be names all the same.

    Examples:
        >>> by_marks(["B) liver", "A) lung"])
        {'B': 'liver', 'A': 'lung'}
        >>> by_marks(["B. fragilis", "E. coli"])
        {'A': 'B. fragilis', 'B': 'E. coli'}
    """
    marks = [mark_of(text) for text in texts]
    letters = "".join(letter for letter, _, _ in marks)
    one_style = len({style for _, style, _ in marks}) == 1
    if not letters or not one_style or sorted(letters) != list(LETTERS[: len(texts)]) or not all(m[2] for m in marks):
        return dict(zip(LETTERS, texts, strict=False)) if len(texts) <= len(LETTERS) else {}
    if letters != LETTERS[: len(texts)] and all(NAME.match(text.strip()) for text in texts):
        raise BadExampleError(
            f"options are {shortened(list(texts), 300)}: are their letters marks, or names cut short?"
        )
    return {letter: text for letter, _, text in marks}


def mark_of(text: str) -> tuple[str, str, str]:
    """(letter, style, text behind) of a marked option; empty letter and style where it carries no mark.

    Examples:
        >>> mark_of(" A:Diffuse uptake"), mark_of("(b) x")[0], mark_of("(B) x")[:2]
        (('A', ':', 'Diffuse uptake'), '', ('B', '()'))
    """
    found = MARKED.match(text)
    if not found:
        return "", "", text.strip()
    letter, style = (found[1], found[2]) if found[1] else (found[3], "()")
    return letter, style, text[found.end() :].strip()


def chosen(label: str, options: Mapping[str, str]) -> str:
    """The text of the option that a letter names.

    Raises:
        BadExampleError: no option has the letter.
    """
    if label.upper() not in options:
        raise BadExampleError(f"label is {label!r}, which is none of the options {', '.join(options)}")
    return options[label.upper()]


def named(answer: str, options: Sequence[str]) -> str:
    """The option that an answer's text names: exactly, or as the only one that differs in case and spaces alone.

    Raises:
        BadExampleError: none or several do.
    """
    if answer in options:
        return answer
    found = [option for option in options if same_words(option) == same_words(answer)]
    if len(found) != 1:
        raise BadExampleError(
            f"the answer {shortened(answer)} is not among the options {shortened(list(options), 300)}"
        )
    return found[0]


def same_words(text: str) -> str:
    """Case and spaces set aside."""
    return " ".join(text.casefold().split())


def agreed(column: str, stated: str, answer: str, options: Mapping[str, str], found_by: str) -> str:
    """The right option, where a second column says it too.

    Args:
        column: the second one's name.
        stated: what stands in it: a letter, a text, or a marked text; empty says nothing.
        answer: the option by the first column.
        options: letter -> text.
        found_by: the first column with its value, for the message.

    Raises:
        BadExampleError: the columns do not say the same.
    """
    letter, _, behind = mark_of(stated)
    meant = same_look(stated, options) | ({options.get(stated.upper(), "")} if len(stated) == 1 else set())
    marked = same_look(behind, options) if letter else set()
    if letter not in options or options[letter] in marked:  # else mark and text of this column disagree
        meant |= marked
    if not stated or answer in meant:
        return answer
    raise BadExampleError(
        f"{found_by} is the option {shortened(answer)}, but {column} is {shortened(stated)}: which of them is right?"
    )


def same_look(text: str, options: Mapping[str, str]) -> set[str]:
    """The option that a text is, else those that look the same."""
    return {text} if text in options.values() else {one for one in options.values() if plain(one) == plain(text)}
