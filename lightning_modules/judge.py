"""A trained reward model as a reward term: it reads reasoning beside picture and question, not phrases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from typing_extensions import override

from artifacts.head_files import read_head
from guards.ranges import between
from lightning_modules.grading import RewardHead, graded_answers
from lightning_modules.policy import Policy
from lightning_modules.rewards.term import UNKNOWN, Judged, RewardTerm


class Judge(RewardTerm):
    """How good a reward model finds the reasoning, 0 to 1: the mean over its dimensions of σ(r_d / T).

    It acts in the same process, on the same base, as an adapter that is switched to; all reasonings of a question
    share picture and question. A grade that is not finite is unknown.

    Source: a Bradley-Terry reward's zero is arbitrary and cancels among the answers to one question; σ bounds it.
    Choice: right and wrong answers are graded alike, and compared over the question's whole group: what a judge is for
        is to tell reasonings apart that end alike. The weight keeps it below correctness, as for every term.
    """

    name: ClassVar = "judge"
    adapter: ClassVar = "judge"
    """Under which name it is attached."""

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        """Options."""

        weight: float = 0.2
        """The weight in the total, as of every term; below 1 where `correct` has 1."""
        model: str = ""
        """Folder of a finished reward model that stands on the bare base, such as runs/judge_tiny/judge."""
        dimensions: tuple[str, ...] = ()
        """The dimensions of the reward model that count, all alike; empty takes all."""
        max_unknown: Annotated[float, between(0, 1)] = 0.5
        """Training stops where more than this share of a step's reasonings could not be graded."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.model:
                raise ValueError("model must be the folder of a finished reward model, such as runs/judge_tiny/judge")

    def attach(self, policy: Policy) -> None:
        """Take the policy on which the reward model is loaded as `adapter`, and read its head.

        Raises:
            AdapterError: the folder holds no reward model.
            ValueError: it has no such dimension.
        """
        weights, meaning = read_head(judge_folder(self.config.model))
        known = list(meaning["dimensions"])
        if strange := [name for name in self.config.dimensions if name not in known]:
            raise ValueError(f"judge: dimensions names {strange}; {self.config.model} grades {known}")
        self.policy, self.temperature = policy, meaning.get("temperature") or 1.0
        self.head = RewardHead(policy.family.hidden_size, known)
        self.head.load_state_dict(dict(weights))
        self.columns = [known.index(name) for name in self.config.dimensions or known]

    @override
    def score(self, judged: Judged) -> float | None:
        return self.scores([judged])[0]

    @override
    @torch.no_grad()
    def scores(self, judged: Sequence[Judged]) -> Sequence[float | None]:
        asked: dict[str, list[int]] = {}  # question -> its completions that have a reasoning to grade
        for row, one in enumerate(judged):
            if one.gate is None:
                asked.setdefault(one.example.question_id, []).append(row)
        found = [0.0] * len(judged)
        head = self.head.to(self.policy.device)
        with self.policy.acting([self.adapter]):
            questions = [(judged[rows[0]].example, [judged[row].thinking for row in rows]) for rows in asked.values()]
            graded = graded_answers(self.policy, head, questions)
        for rows, grades in zip(asked.values(), graded, strict=True):
            means = (grades[:, self.columns] / self.temperature).sigmoid().mean(dim=1)
            for row, mean in zip(rows, means.tolist(), strict=True):
                found[row] = mean if math.isfinite(mean) else UNKNOWN
        unknown = sum(map(math.isnan, found))
        if unknown > self.config.max_unknown * len(judged):
            raise RuntimeError(
                f"judge: {unknown} of {len(judged)} reasonings of a step could not be graded by {self.config.model}, "
                f"more than max_unknown={self.config.max_unknown:g}; is it the reward model that was meant?"
            )
        return found


def judge_folder(model: str) -> Path:
    """The adapter's folder of a reward model: the one named, or `adapter` in it."""
    inner = Path(model) / "adapter"
    return inner if inner.is_dir() else Path(model)
