"""The weighted mean of the experts' updates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from merge.cores import Cores
from merge.methods.interface import CoreMethod
from merge.methods.task_arithmetic import task_arithmetic


def mean(task_vectors: Tensor, weights: Tensor) -> Tensor:
    """Average the task vectors.

        M = sum_i w_i D_i / sum_i w_i

    Args:
        task_vectors: (K, *S) float.
        weights: (K,), above 0.

    Returns:
        (*S), same dtype.

    Source: weight averaging, Model Soups, arXiv:2203.05482.
    """
    return task_arithmetic(task_vectors, weights / weights.sum())


class Mean(CoreMethod):
    """The mean, exact in factor space."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        return mean(joint.cores, weights)
