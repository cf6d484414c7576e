"""What every advantage is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """What P questions' R rollouts earned.

    Attributes:
        total: (P, R) float64, sum of all weighted reward terms.
        between: (P, R) float64, sum of the terms that may be compared between guidelines.
        within: (P, R) float64, sum of the terms that are compared within a guideline alone; NaN where none applies.
        guideline_of: (R,) int64, the guideline of each place of a group.
        guidelines: K names.
        prior: (K,) float64, what each guideline's file gives it; 1 by default.
    """

    total: Tensor
    between: Tensor
    within: Tensor
    guideline_of: Tensor
    guidelines: tuple[str, ...]
    prior: Tensor


class Advantage(ABC):
    """How good a rollout was beside its siblings. A subclass nests its `Config` and is named by its class path."""

    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(self, outcome: Outcome) -> Tensor:
        """(P, R) float64 advantages, detached.

        Raises:
            ValueError: the outcome does not fit the options.
        """
