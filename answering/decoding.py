"""How answers are drawn: the settings of one way of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datamodules.batch import Example

ProtocolName = Literal["single", "two_turn", "likelihood"]


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; by default the most likely tokens, once.

    Attributes:
        max_new_tokens: limit of an answer in tokens; of two turns, of the first.
        temperature: 0 takes the most likely token.
        samples: answers per question and guideline.
        seed: of the draws.
        rows_at_once: answers decoded together.
        protocol: how a question is asked.
        answer_tokens: limit of the second turn's answer in tokens.
    """

    max_new_tokens: int
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    rows_at_once: int = 128
    protocol: ProtocolName = "single"
    answer_tokens: int = 64

    def questions_at_once(self, questions: Sequence[Example]) -> int:
        """How many of these questions make `rows_at_once` rows; an option that is measured is a row."""
        measured = max((len(example.options) for example in questions), default=1)
        return max(1, self.rows_at_once // (measured if self.protocol == "likelihood" else self.samples))
