"""OmniMedVQA's two scores: the option most similar to a generated text, and the option of least loss.

Behaves like the release at ddd9465 (Multi-Modality-Arena, MedicalEval), defects included; the code is ours. Defects:
- `nearest`: any text that shares a letter with an option is an answer; "not B's text" answers B.
- `case`: similarity distinguishes upper from lower case.
- `zero_loss`: a loss of exactly 0 turns every score into NaN, and the first option wins.
A text without a letter in common with any option stops the release's comparison for that item, which counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher


def prompt(question: str, options: Sequence[str]) -> str:
    """The question as the release puts it, for the score of generated text."""
    return (
        f"{question}Here are {len(options)} candidate answers:{list(options)} Only return what you think is the "
        "correct answer from the candidate answers, do not return any other irrelevant text!"
    )


def prefix(question: str) -> str:
    """What each candidate is appended to, for its loss: plain text after the pictures, in no chat.

    Choice: the candidates are not named, as in the release's scripts but one; that for LLaVA-Med puts `prompt` in the
        place of the question.
    """
    return f"Question: {question} The answer is"


def continuation(option: str) -> str:
    """A candidate as it is appended to `prefix`; its loss is over these tokens alone."""
    return f" {option}."


def most_similar(text: str, options: Sequence[str]) -> int | None:
    """Index of the option with the greatest difflib ratio, the first of equals; None if every ratio is 0."""
    ratios = [SequenceMatcher(None, option, text).ratio() for option in options]
    best = max(range(len(options)), key=lambda i: ratios[i])
    return best if ratios[best] > 0 else None


def least_loss(losses: Sequence[float]) -> int:
    """Index of the option that the prefix score chooses.

    Args:
        losses: mean negative log-likelihood of each option's tokens after `prefix`, at least 0.

    Raises:
        ValueError: no losses, or a negative one.
    """
    if not losses or min(losses) < 0:
        raise ValueError(f"OmniMedVQA's prefix score needs one loss per option, none negative, got {list(losses)}")
    return 0 if min(losses) == 0 else min(range(len(losses)), key=lambda i: losses[i])
