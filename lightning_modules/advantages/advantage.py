"""What every advantage is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
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


def among_known(advantage: Callable[[Outcome], Tensor], outcome: Outcome, known: Tensor) -> Tensor:
    """Advantages among the rollouts whose reward is known; the others have 0, and no part in any mean or spread.

    Args:
        advantage: of a group in which all are known.
        outcome: P questions with R rollouts each.
        known: (P, R) bool.

    Returns:
        (P, R) float64. A question with fewer than two known rollouts has nothing to compare: all 0.
    """
    if bool(known.all()):
        return advantage(outcome)
    found = torch.zeros_like(outcome.total)
    for pattern in known.unique(dim=0):
        questions, places = (known == pattern).all(dim=1).nonzero(), pattern.nonzero()[:, 0]
        if len(places) > 1:
            rewards = (getattr(outcome, name)[questions, places] for name in ("total", "between", "within"))
            rest = (outcome.guideline_of[places], outcome.guidelines, outcome.prior)
            found[questions, places] = advantage(Outcome(*rewards, *rest))
    return found
