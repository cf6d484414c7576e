"""Training targets as the strict reader will score them: what is imitated must itself be a right answer."""

from __future__ import annotations

from dataclasses import replace

from datamodules.batch import AnswerStyle, BadExampleError, Example
from evaluation.answers import TAG, strict_block, thinking_of
from evaluation.predictions import Prediction
from evaluation.scorers import Outcome, strict

ONLY_THINKING = ("<think>", "</think>")


def untagged(example: Example) -> Example:
    """The example with the tags taken off its traces, where these are whole completions as other sets release them.

    `<think>…</think><answer>…</answer>` becomes what stands in the thinking, if the answer is the row's own; so does
    `<think>…</think>` alone. `Example.trace` puts tags around it again.

    Args:
        example: its options in the order in which the traces name them: that of the row, not the one that is shown.

    Raises:
        BadExampleError: a trace holds tags in another form, or an answer that contradicts the row's.
    """
    if not any(TAG.search(text) for text in example.reasoning.values()):
        return example
    return replace(example, reasoning={name: thinking(example, name) for name in example.reasoning})


def thinking(example: Example, guideline: str) -> str:
    """A trace without tags; errors as of `untagged`."""
    text = example.reasoning[guideline]
    tags = tuple(match.group() for match in TAG.finditer(text))
    if not tags:
        return text
    if tags == ONLY_THINKING and text.startswith(tags[0]) and text.rstrip().endswith(tags[1]):
        return thinking_of(text).strip()
    block, fault = strict_block(text)
    if block is None:
        raise BadExampleError(
            f"reasoning.{guideline} holds the tags {' '.join(tags[:6])} ({fault}); expected plain text, or one whole "
            "<think>…</think><answer>…</answer>, of which the thinking is taken"
        )
    read = read_strictly(example, text)
    if not read.right:
        raise BadExampleError(
            f"reasoning.{guideline} ends in <answer>{block[:80]}</answer>, read as {read.answered!r} ({read.reason}), "
            f"where the row's answer is {gold(example)}: one of them is wrong"
        )
    return thinking_of(text).strip()


def refuse_unreadable(example: Example, answer_with: AnswerStyle) -> None:
    """Read every target of an example as an answer to its question.

    Args:
        example: its options in the order shown.
        answer_with: what the answer block of a target holds.

    Raises:
        BadExampleError: a target would earn nothing, or would be empty between its tags.
    """
    for guideline, text in example.reasoning.items():
        if not text.strip():
            raise BadExampleError(f"reasoning.{guideline} is empty")
        read = read_strictly(example, example.trace(guideline, answer_with))
        if not read.right:
            raise BadExampleError(
                f"reasoning.{guideline} as a training target, its answer given as {answer_with}, is read as "
                f"{read.answered!r} ({read.reason}) by the strict reader, and the right answer is {gold(example)}"
            )


def read_strictly(example: Example, completion: str) -> Outcome:
    """What the strict scorer makes of a completion."""
    return strict(
        Prediction(
            model="",
            specialty="",
            question_id=example.question_id,
            patient_id=example.patient_id,
            guideline="",
            options=example.options,
            answer_letter=example.letter if example.options else "",
            completion=completion,
            answer="" if example.options else example.answer,
        )
    )


def gold(example: Example) -> str:
    """The right answer for a message."""
    return repr(f"{example.letter}) {example.answer}" if example.options else example.answer)
