"""The live model that a merge from the command line may ask; named by its dotted path, so that merges import none."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from merge.grams import BUDGET_MIB


@dataclass(frozen=True)
class Live:
    """Where a merge from the command line finds a model to ask: for Gram matrices, and for `auto`."""

    config: str
    """Experiment file whose base and data are used; experts are named after its specialties."""
    overrides: tuple[str, ...] = ()
    """Dotted `key=value` arguments, as on the command line of `train.py`."""
    rows: int = 96
    """Training questions per specialty on which Gram matrices are collected."""
    gram_mib: int = BUDGET_MIB
    """Memory for the Gram matrices that are collected together, MiB; with less, more passes over the questions."""
    n: int = 60
    """Questions per specialty on which candidates are chosen, and the winner confirmed; 0 takes all."""
    gate_n: int = 40
    """Validation questions per specialty on which the gates compare a merged agent with base and expert; 0: none."""
    max_new_tokens: int = 96
    """Limit of an answer in tokens."""
    factory: str = "experiment.live_model.merge_answers"
    """Dotted path of the function that builds what is asked."""

    def __post_init__(self) -> None:
        if min(self.rows, self.gram_mib, self.max_new_tokens) < 1 or min(self.n, self.gate_n) < 0:
            raise ValueError(
                "live.rows, live.gram_mib and live.max_new_tokens must be at least 1, live.n and live.gate_n at least "
                f"0; got {self.rows}, {self.gram_mib}, {self.max_new_tokens}, {self.n} and {self.gate_n}"
            )

    def model(self) -> Any:
        """What is asked: an object with the methods of `answering.merge_answers.MergeAnswers`."""
        module, _, name = self.factory.rpartition(".")
        build = getattr(importlib.import_module(module), name)
        model = build(self.config, self.overrides, n=self.n, max_new_tokens=self.max_new_tokens)
        model.gram_mib = self.gram_mib
        return model
