"""MedXpertQA's own protocol: two turns of zero-shot reasoning, then the first letter of the second turn.

Behaves like the release at f21247d, defects included; the code is ours. Named defects:
- `article`: outside the two turns, "A chest CT …" answers A, and with ten options "I think …" answers I.
- `negation`: " answer is not A but B" answers A.
- `case`: a lower-case letter is not read.
- `second_part`: where the trigger is repeated, only what stands between its first two occurrences is looked at.
The authors ask not to use this reading for QVQ and DeepSeek-R1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"
ECHOES = ("I understand", "A through J", "A through E", "A through D")
SYSTEM = "You are a helpful medical assistant."
"""Of both turns; its wording, like that of `direct_turn`, follows a description of the release, not its text."""


def released_question(stem: str, options: Sequence[str]) -> str:
    """A question as the release spells it, with its answer choices on a line of their own.

    Raises:
        ValueError: fewer than 2 or more than 10 options.
    """
    letters = LETTERS[: _checked(len(options))]
    choices = " ".join(f"({letter}) {option}" for letter, option in zip(letters, options, strict=True))
    return f"{stem}\nAnswer Choices: {choices}"


def first_turn(question: str) -> str:
    """The text of the first turn; its pictures follow it.

    Args:
        question: as released, with its answer choices.
    """
    return f"Q: {question}\nA: Let's think step by step."


def second_turn(n_options: int) -> str:
    """The text of the second turn, without pictures: the trigger that the answer completes.

    Raises:
        ValueError: fewer than 2 or more than 10 options.
    """
    return f"Therefore, among A through {LETTERS[_checked(n_options) - 1]}, the answer is"


def direct_turn(question: str, n_options: int) -> str:
    """The only turn of the direct mode, without reasoning."""
    return f"Q: {question}\nA: Among A through {LETTERS[_checked(n_options) - 1]}, the answer is"


def letter(text: str, n_options: int) -> str | None:
    """Read the answer as the release does; None is scored as wrong.

    Args:
        text: the completion of the second turn.
        n_options: letters that may be read, 2 to 10.

    Raises:
        ValueError: fewer than 2 or more than 10 options.
    """
    for cue in (second_turn(n_options), " answer is "):
        if cue in text:
            text = text.split(cue, 2)[1].strip()
            break
    for echo in ECHOES:
        text = text.replace(echo, "")
    found = re.search(rf"\b[{LETTERS[:n_options]}]\b", text)
    return found.group() if found else None


def _checked(n_options: int) -> int:
    if not 2 <= n_options <= len(LETTERS):
        raise ValueError(f"MedXpertQA: 2 to {len(LETTERS)} options have letters, got {n_options}")
    return n_options
