"""How a question is put to a model. The wording is part of the protocol: change VERSION with it."""

from __future__ import annotations

from dataclasses import replace

from datamodules.batch import LETTERS, Example

VERSION = "1"

NEUTRAL = "neutral"
"""The guideline name of the prompt that carries no instruction: the one used at test time."""

WORDINGS = (
    ("Question: {question}\nOptions:", "Question: {question}"),
    ("{question}\nWhich of these is right?", "{question}\nAnswer in a few words."),
    ("Consider this case.\n{question}\nChoose one option:", "Consider this case.\n{question}\nGive a short answer."),
    ("Pick the option that fits best.\n{question}", "Answer this briefly.\n{question}"),
)
"""Frames around a stem, for questions with options and without: they ask the same in other words. Ours, and no part of
the plain prompt; the lettering of the options stays."""


def reworded(example: Example, number: int) -> Example:
    r"""The question in another wording; 0 is the plain one, n the n-th of `WORDINGS`.

    Examples:
        >>> reworded(Example("p", (), "Wide?", ("yes", "no"), "yes", "q"), 2).question
        'Wide?\nWhich of these is right?'
    """
    if number == 0:
        return example
    closed, open_ = WORDINGS[number - 1]
    return replace(example, question=(closed if example.options else open_).replace("{question}", example.question))


def question_text(example: Example) -> str:
    """The part that all rollouts of a question share: stem and lettered options."""
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, example.options, strict=False)]
    return "\n".join([example.question, *lines])


def prompt_text(example: Example, instruction: str) -> str:
    """Question first, the guideline's instruction last, so that a group's rollouts share the long prefix."""
    text = question_text(example)
    return f"{text}\n{instruction}" if instruction else text
