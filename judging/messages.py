"""What a judge is shown: an instruction, then the case between the release's marks; all in one user turn, one picture.

The marks and their order are the release's, so that a model that was made for them finds them. The instructions are
worded by us after what the release's ask for; `instruction` in the settings takes its text from a file instead.

Source: Med-RewardBench, arXiv:2508.21430, released code at 9b9d806; the marks come from MLLM-as-a-Judge,
    arXiv:2402.04788, as do the names of the three modes.
Choice: the release runs its pair instruction in all three modes and reads only pairs. `score` and `batch` ask here for
    what their names say: grades of one answer, and an order of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from judging.cases import DIMENSIONS

VERSION = "1"
"""Of the wording: other words are another protocol."""
Mode = Literal["pair", "score", "batch"]
MODES: tuple[Mode, ...] = ("pair", "score", "batch")
LOWEST, HIGHEST = 1, 10
"""Grades in `score` mode."""
NAMED = f"{', '.join(DIMENSIONS[:-1])} and {DIMENSIONS[-1]}"
ROLE = "You are a medical expert who judges answers to questions about medical pictures."
TASKS: dict[Mode, str] = {
    "pair": f"Two assistants, A and B, answered the same question about this picture. Judge both answers by {NAMED}.\n"
    "Name exactly one winner for each of the six, A or B; a draw is not allowed.",
    "score": f"An assistant answered a question about this picture. Judge the answer by {NAMED}.\n"
    f"Give a whole number from {LOWEST} (worst) to {HIGHEST} (best) for each of the six.",
    "batch": f"Several assistants, named by letters, answered the same question about this picture. "
    f"Judge them by {NAMED}.\nFor each of the six put all letters in order, the best assistant first.",
}
VALUES: dict[Mode, str] = {"pair": '"A or B"', "score": "number", "batch": '"letters in order"'}
THINKING = "Think step by step before you decide if that helps; the object below must still come at the end.\n"


def instruction(mode: Mode, thinking: bool = False) -> str:
    """Our wording of what the judge is to do and in which form.

    Args:
        mode: what is judged at a time.
        thinking: allow reasoning before the object.
    """
    keys = ", ".join(f'"{name}": {VALUES[mode]}' for name in DIMENSIONS)
    form = f'Answer with one JSON object that has exactly these keys: {{{keys}, "reason": "one short sentence"}}'
    return f"{ROLE} {TASKS[mode]}\n{THINKING if thinking else ''}{form}"


def message(told: str, question: str, answers: Sequence[str], mode: Mode) -> str:
    """The whole user turn.

    Args:
        told: the instruction.
        question: that was answered.
        answers: in the order shown; one for `score`, two for `pair`.
        mode: decides the marks.

    Raises:
        ValueError: the number of answers does not fit the mode.
    """
    expected = {"score": 1, "pair": 2}.get(mode, len(answers))
    if len(answers) != expected or not answers:
        raise ValueError(f"message: mode {mode!r} takes {expected} answers, got {len(answers)}")
    blocks = [between("User Instruction", question)]
    if mode == "score":
        blocks.append(between("Assistant's Answer", answers[0]))
    else:
        blocks += [between(f"Assistant {chr(ord('A') + place)}'s Answer", text) for place, text in enumerate(answers)]
    end = "\n" if mode == "batch" else ""
    return f"{told}\nHere is the input:\n" + "\n".join(blocks) + end


def between(name: str, text: str) -> str:
    """A text between the marks of its start and its end, each on a line of its own."""
    return f"[The Start of {name}]\n{text}\n[The End of {name}]"
