"""Options and right answers in the forms in which sets are released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datamodules.batch import LETTERS, BadExampleError
from datamodules.rows import shortened


def lettered(options: Any) -> dict[str, str]:
    """Options as letter -> text, from any released form: a list of texts, a mapping, or a list of {letter, content}.

    Raises:
        BadExampleError: another form, or letters that are not A, B, C, … in this order.
    """
    if isinstance(options, list) and all(isinstance(item, str) for item in options):
        options = dict(zip(LETTERS, options, strict=False)) if len(options) <= len(LETTERS) else {}
    elif isinstance(options, list) and all(isinstance(item, dict) for item in options):
        options = {item.get("letter"): item.get("content") for item in options}
    texts = isinstance(options, dict) and all(isinstance(text, str) for text in options.values())
    if not texts or list(options) != list(LETTERS[: len(options)]) or len(options) < 2:
        raise BadExampleError(f"options are {shortened(options)}, expected 2 to {len(LETTERS)} texts A, B, C, …")
    return {letter: text.strip() for letter, text in options.items()}


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
