"""The live model that a merge from the command line may ask; named by its dotted path, so that merges import none."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

from guards.ranges import Ranged, at_least
from merge.grams import BUDGET_MIB

ANSWERS = "experiment.live_model.merge_answers"
"""Builds what is asked. No setting: a recipe runs nothing that it names."""


@dataclass(frozen=True)
class Live(Ranged):
    """Where a merge from the command line finds a model to ask: for Gram matrices, and for `auto`."""

    config: str
    """Experiment file whose base and data are used; experts are named after its specialties."""
    overrides: tuple[str, ...] = ()
    """Dotted `key=value` arguments, as on the command line of `train.py`."""
    rows: Annotated[int, at_least(1)] = 96
    """Training questions per specialty for Gram matrices and learned scalars."""
    gram_mib: Annotated[int, at_least(1)] = BUDGET_MIB
    """Memory for the Gram matrices that are collected together, MiB; with less, more passes over the questions."""
    n: Annotated[int, at_least(0)] = 60
    """Questions per specialty on which candidates are chosen, and the winner confirmed; 0 takes all."""
    gate_n: Annotated[int, at_least(0)] = 40
    """Validation questions per specialty on which the gates compare a merged agent with base and expert; 0: none."""
    max_new_tokens: Annotated[int, at_least(1)] = 96
    """Limit of an answer in tokens."""

    def model(self) -> Any:
        """What is asked: an object with the methods of `answering.merge_answers.MergeAnswers`."""
        module, _, name = ANSWERS.rpartition(".")
        build = getattr(importlib.import_module(module), name)
        model = build(self.config, self.overrides, n=self.n, max_new_tokens=self.max_new_tokens)
        model.gram_mib = self.gram_mib
        return model
