"""The reward of a short answer that shares words with the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from evaluation.open_answers import overlap
from lightning_modules.rewards.term import Judged, Question, RewardTerm


class TokenF1(RewardTerm):
    """F1 of the words of a short answer with those of the right one, by the reading of the main score.

        F1 = 2 p r / (p + r)        p = |common| / |answer|        r = |common| / |right answer|

    Questions with options have none. A yes or no shares all words or none.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1; words as of `evaluation.open_answers.normal_answer`.
    Limit: opposites share words too: "right lower lobe" for "left lower lobe" is 2/3, ER- for ER+ is 1/2.
    Choice: a summand beside `correct`, which pays the exact answer, and not in its place: half an answer ("lobe" for
        "left upper lobe") is then worth less than the right one by whole points, whatever else is paid.
    """

    name: ClassVar = "token_f1"

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options."""

        weight: float = 0.5
        """The weight in the total, as of every term; together with what else a wrong answer may earn below that of
        `correct`."""

    @override
    def score(self, judged: Judged) -> float | None:
        example = judged.example
        return None if example.options else overlap(judged.answer or "", example.answer).f1

    @override
    def applies_to(self, example: Question) -> bool:
        return not example.options
