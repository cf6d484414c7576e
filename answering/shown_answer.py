"""An answer taken apart for a reader: guideline, reasoning, chosen option, and how firmly it was chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from answering.answer import Answer
from answering.option_shares import OptionShares
from datamodules.batch import LETTERS, Example
from evaluation.answers import extract, strict_block, thinking_of
from guards.printable import printable_lines, printable_whole


@dataclass(frozen=True)
class ShownAnswer:
    """What is shown of an answer.

    Attributes:
        guideline: whose instruction the prompt carried.
        completion: the answer as it was written.
        reasoning: the text between its thinking tags.
        letter: the option that the strict reader reads; None where it reads none, or there are no options.
        answer: what the answer block holds, of a chosen option its text; empty where there is no block.
        note: why nothing was read, or that the answer was cut off; empty where all is well.
        options: letter -> (text, probability); the latter None where it could not be measured.
        mass: of all options together, see `OptionShares`.
    """

    guideline: str
    completion: str
    reasoning: str
    letter: str | None
    answer: str
    note: str
    options: dict[str, tuple[str, float | None]]
    mass: float | None

    @classmethod
    def of(cls, example: Example, guideline: str, answer: Answer, measured: OptionShares | None) -> ShownAnswer:
        """Read an answer.

        Args:
            example: the question.
            guideline: its name.
            answer: to it.
            measured: of its options, if they could be measured.
        """
        text, options = answer.completion, example.options
        read = extract(text, options) if options else None
        letter = read.letter if read else None
        block = strict_block(text)[0] or ""
        chosen = options[LETTERS.index(letter)] if letter else block
        notes = [f"not read as an option: {read.reason}"] if read and letter is None else []
        notes += ["cut off at the limit of tokens"] if answer.truncated else []
        shares = measured.shares if measured else (None,) * len(options)
        listed = dict(zip(LETTERS, zip(options, shares, strict=True), strict=False))
        mass = measured.mass if measured else None
        return cls(guideline, text, thinking_of(text).strip(), letter, chosen, "; ".join(notes), listed, mass)

    @property
    def json(self) -> dict[str, Any]:
        """The same for programs."""
        options = {letter: {"text": text, "probability": p} for letter, (text, p) in self.options.items()}
        return {**asdict(self), "options": options}

    def __str__(self) -> str:
        answer = f"{self.letter}) {self.answer}" if self.letter else self.answer or "none"
        lines = [
            f"guideline  {self.guideline}",
            f"reasoning  {printable_whole(self.reasoning) or 'none'}",
            f"answer     {printable_lines(answer)}{f'  ({self.note})' if self.note else ''}",
        ]
        for number, (letter, (text, p)) in enumerate(self.options.items()):
            told = "     -" if p is None else f"{100 * p:5.1f} %"
            lines.append(f"{'options' if number == 0 else '':<11}{told}  {letter}) {printable_lines(text)}")
        if self.mass is not None and self.mass < 0.99:
            lines.append(f"{'':<11}all options together had {100 * self.mass:.1f} % of the probability")
        return "\n".join(lines)
