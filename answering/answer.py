"""What a model said to a question, as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from evaluation.predictions import Prediction

PLAIN: Mapping[str, str] = MappingProxyType({})
"""The protocol of a question that is put as it stands, and answered greedily."""


@dataclass(frozen=True)
class Answer:
    """What one row of asking gave.

    Attributes:
        completion: the text as generated; of two turns, the last one's; empty where options were measured.
        ids: its tokens, the end token included where the model stopped by itself.
        n_tokens: length in tokens, together with that of an earlier turn.
        truncated: it, or an earlier turn, reached its limit.
        turns: completions of the earlier turns, in order.
        option_losses: mean negative log-likelihood of each option, nats per token; none where one is not finite.
        option_tokens: tokens of each option.
        prompt_tokens: of what was asked, as an endpoint counts them; 0 where the model runs here.
        fault: why an endpoint gave no usable words; empty where it did, or the model runs here.
    """

    completion: str
    ids: tuple[int, ...]
    n_tokens: int
    truncated: bool
    turns: tuple[str, ...] = ()
    option_losses: tuple[float, ...] = ()
    option_tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0
    fault: str = ""

    def prediction(
        self,
        example: Example,
        *,
        model: str = "",
        specialty: str = "",
        guideline: str = NEUTRAL,
        sample: int = 0,
        protocol: Mapping[str, str] = PLAIN,
    ) -> Prediction:
        """The answer beside its question, in the form that every scorer of `evaluation.scorers` reads.

        Args:
            example: the question as it was put.
            model: row of the matrix that it counts for.
            specialty: column.
            guideline: whose instruction the prompt carried.
            sample: counts the answers to one question.
            protocol: what differs from the default protocol.
        """
        return Prediction(
            model=model,
            specialty=specialty,
            question_id=example.question_id,
            patient_id=example.patient_id,
            guideline=guideline,
            options=example.options,
            answer_letter=example.letter if example.options else "",
            completion=self.completion,
            tags=dict(example.tags),
            n_tokens=self.n_tokens,
            truncated=self.truncated,
            answer="" if example.options else example.answer,
            sample=sample,
            protocol=dict(protocol),
            turns=self.turns,
            option_losses=self.option_losses,
            option_tokens=self.option_tokens,
            prompt_tokens=self.prompt_tokens,
            fault=self.fault,
        )
