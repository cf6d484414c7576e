"""A trained reward model, ready to grade answers to any question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from answering.live_model import LiveModel
from artifacts.adapter_files import acting_sha256
from artifacts.head_files import read_head
from lightning_modules.grading import TOKENS_AT_ONCE, Asked, RewardHead, graded_answers

Grade = Callable[[Sequence[Asked]], list[Tensor]]
"""Grades the answers to some questions: for each question (answers, D) log-odds, on the CPU."""


@dataclass(frozen=True)
class Grader:
    """A reward model on disk and the base that it stands on.

    Attributes:
        model: the base, which is loaded when it is first needed.
        adapters: folders of the adapters that act together, the reward model's own last.
        head: its weights.
        meaning: what they stand for, see `artifacts.head_files`.
        tokens_at_once: bound on tokens per forward pass.
    """

    model: LiveModel
    adapters: tuple[Path, ...]
    head: Mapping[str, Tensor]
    meaning: Mapping[str, Any]
    tokens_at_once: int = TOKENS_AT_ONCE

    @classmethod
    def of(cls, model: LiveModel, adapters: Sequence[Path]) -> Grader:
        """Read a reward model; errors as of `read_head`."""
        return cls(model, tuple(adapters), *read_head(adapters[-1]))

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What answers are graded on."""
        return tuple(self.meaning["dimensions"])

    @property
    def objective(self) -> str:
        """What it learnt: `preference` or `outcome`."""
        return self.meaning["objective"]

    @property
    def temperature(self) -> float:
        """Fitted on validation; 1 where there was none."""
        return self.meaning.get("temperature") or 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """All that grades depend on besides question and answers, as JSON."""
        acting = [acting_sha256(folder) for folder in self.adapters]
        return {"model": self.model.fingerprint, "adapters": acting, "head": self.meaning["sha256"],
                "temperature": self.temperature}  # fmt: skip

    @contextmanager
    def acting(self) -> Iterator[Grade]:
        """The reward model in memory, for a while.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        with self.model.acting(self.adapters) as policy:
            head = RewardHead(policy.family.hidden_size, self.dimensions)
            head.load_state_dict(dict(self.head))
            head.to(policy.device)
            yield lambda asked: graded_answers(policy, head, asked, self.tokens_at_once)
