"""Task arithmetic: the scaled, weighted sum of the experts' updates."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from merge.methods.interface import MergeResult, Vector, check_weights


def task_arithmetic(task_vectors: Tensor, *, weights: Sequence[float] | None = None, lambda_: float = 1.0) -> Tensor:
    """Add the task vectors.

        M = lambda sum_i w_i D_i

    Args:
        task_vectors: (K, *S) float.
        weights: K factors, of either sign; None means 1 each. 1 / K with lambda 1 is the plain average.
        lambda_: scale of the result.

    Returns:
        (*S), same dtype.

    Raises:
        ValueError: not one finite weight per task vector.

    Source: Task Arithmetic, arXiv:2212.04089, section 2.
    """
    weights = [1.0] * len(task_vectors) if weights is None else weights
    check_weights(weights, len(task_vectors), positive=False)
    return lambda_ * torch.tensordot(task_vectors.new_tensor(weights), task_vectors, dims=1)


class TaskArithmetic:
    """Task arithmetic in factor space, exact: ranks add, and no matrix is formed."""

    @dataclass(frozen=True)
    class Config:
        """Options of task arithmetic."""

        lambda_: float = 1.0
        """Scale of the sum, finite; 1 adds the experts, 1 / K averages them."""

        def __post_init__(self) -> None:
            if not math.isfinite(self.lambda_):
                raise ValueError(f"lambda_ must be finite, got {self.lambda_}")

    def __init__(self, config: Config | None = None) -> None:
        """Keep the configuration; None means the defaults."""
        self.config = config if config is not None else self.Config()

    def merge(self, vectors: Sequence[Vector], weights: Sequence[float]) -> MergeResult:
        """Compute M = lambda sum_i w_i D_i.

        Args:
            vectors: K task vectors over the same modules.
            weights: K finite factors, of either sign.

        Raises:
            ValueError: weights do not fit, or the modules differ.
        """
        check_weights(weights, len(vectors), positive=False)
        terms = (vector * (self.config.lambda_ * weight) for vector, weight in zip(vectors, weights, strict=True))
        return MergeResult(vector=reduce(operator.add, terms))
