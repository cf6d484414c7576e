"""A trained reward model as a reward term: it reads reasoning beside picture and question, not phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from artifacts.adapter_files import adapter_sha256, read_manifest
from artifacts.head_files import read_head
from configs.schema import adapter_faults
from lightning_modules.grading import RewardHead, graded_answers
from lightning_modules.policy import Policy
from lightning_modules.rewards.judge import JudgeTerm
from lightning_modules.rewards.term import Judged


class Judge(JudgeTerm):
    """How good a reward model finds the reasoning, 0 to 1: the mean over its dimensions of σ(r_d / T).

    It acts in the same process, on the same base, as an adapter that is switched to; all reasonings of a question
    share picture and question. A grade that is not finite is unknown.

    Source: a Bradley-Terry reward's zero is arbitrary and cancels among the answers to one question; σ bounds it.
    """

    name: ClassVar = "judge"
    adapter: ClassVar = "judge"
    """Under which name it is attached."""

    @dataclass(frozen=True)
    class Config(JudgeTerm.Config):
        """Options."""

        model: str = ""
        """Folder of a finished reward model that stands on the bare base, such as runs/judge_tiny/judge."""
        dimensions: tuple[str, ...] = ()
        """The dimensions of the reward model that count, all alike; empty takes all."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.model:
                raise ValueError("model must be the folder of a finished reward model, such as runs/judge_tiny/judge")

    @property
    def folder(self) -> Path:
        """The adapter's folder: the one named, or `adapter` in it."""
        inner = Path(self.config.model) / "adapter"
        return inner if inner.is_dir() else Path(self.config.model)

    @property
    @override
    def identity(self) -> Mapping[str, str]:
        return {"adapter": adapter_sha256(self.folder), "head": read_head(self.folder)[1]["sha256"]}

    @override
    def check(self) -> None:
        model, told = self.config.model, "train one first, as by `python train.py --config judge_tiny.yaml`"
        if faults := list(adapter_faults(model)):
            raise ValueError(f"{'; '.join(faults)}; {told}")
        read_head(self.folder)
        if read_manifest(self.folder)["parent"]:
            raise ValueError(f"{model} grew from another adapter; a judge stands on the bare base; {told}")

    @override
    def attach(self, policy: Policy) -> None:
        """Take the policy on which the reward model is loaded as `adapter`, and read its head.

        Raises:
            AdapterError: the folder holds no reward model.
            ValueError: it has no such dimension.
        """
        weights, meaning = read_head(self.folder)
        known = list(meaning["dimensions"])
        if strange := [name for name in self.config.dimensions if name not in known]:
            raise ValueError(f"judge: dimensions names {strange}; {self.config.model} grades {known}")
        self.policy, self.temperature = policy, meaning.get("temperature") or 1.0
        self.head = RewardHead(policy.family.hidden_size, known)
        self.head.load_state_dict(dict(weights))
        self.columns = [known.index(name) for name in self.config.dimensions or known]

    @override
    @torch.no_grad()
    def grades(self, judged: Sequence[Judged]) -> Sequence[float]:
        asked: dict[str, list[int]] = {}  # question -> its reasonings
        for row, one in enumerate(judged):
            asked.setdefault(one.example.question_id, []).append(row)
        found = [0.0] * len(judged)
        head = self.head.to(self.policy.device)
        with self.policy.acting([self.adapter]):
            questions = [(judged[rows[0]].example, [judged[row].thinking for row in rows]) for rows in asked.values()]
            graded = graded_answers(self.policy, head, questions)
        for rows, grades in zip(asked.values(), graded, strict=True):
            means = (grades[:, self.columns] / self.temperature).sigmoid().mean(dim=1)
            for row, mean in zip(rows, means.tolist(), strict=True):
                found[row] = mean
        return found

    @override
    def why_unknown(self) -> str:
        return f"is {self.config.model} the reward model that was meant?"
