"""`python -m answering ask`: one question to what was trained, as the examination would put it."""

from __future__ import annotations

import argparse
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from answering.conversation import chat_prompt, question_turn, reply
from answering.decoding import Decoding
from answering.live_model import LiveModel
from answering.model_commands import add_drawing_options, add_model_options, live_model
from answering.option_shares import option_shares
from answering.shown_answer import ShownAnswer
from answering.trained import Trained, one
from datamodules.batch import Example
from guards.printable import printable_whole
from lightning_modules.rewards.guidelines import load_guidelines

OPEN_ANSWER = "?"
"""Stands where a question of a data set has its right answer; no prompt shows it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("run", help="folder of a run, a merged agent or an adapter; or a base: folder or hub id")
    parser.add_argument("question", help="the question, without its options")
    parser.add_argument(
        "--image", action="append", default=[], type=Path, metavar="FILE", help="a picture; may be repeated"
    )
    parser.add_argument("--options", nargs="+", default=[], metavar="TEXT", help="to choose from, without letters")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing while it is written")
    add_drawing_options(parser)
    add_model_options(parser)


def run(given: Namespace) -> int:
    """Ask, and show the answer; errors as of `asked`."""
    example = asked_example(given)
    guideline, instruction = guideline_of(given.guideline)
    trained = one(given.run, given.base)
    model = live_model(given, [trained])
    tell = None if given.json else say
    shown = asked(model, trained, example, guideline, instruction, decoding_of(given), tell)
    print(json.dumps(shown.json, ensure_ascii=True) if given.json else f"\n\n{shown}", flush=True)
    return 0


def asked(
    model: LiveModel,
    trained: Trained,
    example: Example,
    guideline: str,
    instruction: str,
    decoding: Decoding,
    tell: Callable[[str], None] | None = None,
) -> ShownAnswer:
    """The answer to a question, taken apart.

    Args:
        model: on the base.
        trained: who answers.
        example: the question.
        guideline: its name.
        instruction: its text.
        decoding: how the answer is drawn.
        tell: is given the text as it is written.

    Raises:
        BadExampleError: a picture cannot be read, or there is no room for an answer.
        AdapterError: an adapter is damaged, or of another base.
    """
    with model.acting(trained.adapters) as policy:
        prompt = chat_prompt(policy, [question_turn(example, instruction)], name=example.question_id)
        answer = reply(policy, prompt, decoding, tell)
        measured = option_shares(policy, prompt, answer.completion, example.options)
    return ShownAnswer.of(example, guideline, answer, measured)


def asked_example(given: Namespace) -> Example:
    """The question as a row of a data set, whose right answer nobody knows; errors as of `Example`."""
    options = tuple(given.options)
    answer = options[0] if options else OPEN_ANSWER
    return Example("asked", tuple(given.image), given.question, options, answer, "asked")


def decoding_of(given: Namespace) -> Decoding:
    """How an answer is drawn.

    Raises:
        ValueError: the temperature is negative.
    """
    if not 0 <= given.temperature <= 10:
        raise ValueError(f"--temperature {given.temperature}: must lie in [0, 10]")
    return replace(Decoding(given.max_tokens), temperature=given.temperature, seed=given.seed)


def guideline_of(name: str) -> tuple[str, str]:
    """Name and instruction of a guideline.

    Raises:
        ValueError: there is none of that name; lists those that there are.
    """
    ((found, guideline),) = load_guidelines([name]).items()
    return found, guideline.instruction


def say(piece: str) -> None:
    """Show a piece of an answer at once."""
    sys.stdout.write(printable_whole(piece))
    sys.stdout.flush()
