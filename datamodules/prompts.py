"""How a question is put to a model. The wording is part of the protocol: change VERSION with it."""

from __future__ import annotations

from datamodules.batch import LETTERS, Example

VERSION = "1"

NEUTRAL = "neutral"
"""The guideline name of the prompt that carries no instruction: the one used at test time."""


def question_text(example: Example) -> str:
    """The part that all rollouts of a question share: stem and lettered options."""
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, example.options, strict=False)]
    return "\n".join([example.question, *lines])


def prompt_text(example: Example, instruction: str) -> str:
    """Question first, the guideline's instruction last, so that a group's rollouts share the long prefix."""
    text = question_text(example)
    return f"{text}\n{instruction}" if instruction else text
