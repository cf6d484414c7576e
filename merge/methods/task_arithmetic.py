"""Task arithmetic: the scaled, weighted sum of the experts' updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from merge.cores import Cores
from merge.methods.interface import CoreMethod, check_number


def task_arithmetic(task_vectors: Tensor, weights: Tensor, lambda_: float = 1.0) -> Tensor:
    """Add the task vectors.

        M = lambda sum_i w_i D_i

    Args:
        task_vectors: (K, *S) float.
        weights: (K,) factors, of either sign.
        lambda_: scale of the result; 1 / K with equal weights is the plain average.

    Returns:
        (*S), same dtype.

    Source: Task Arithmetic, arXiv:2212.04089, section 2.
    """
    return lambda_ * torch.tensordot(weights, task_vectors, dims=1)


class TaskArithmetic(CoreMethod):
    """Task arithmetic, exact in factor space."""

    @dataclass(frozen=True)
    class Config:
        """Options of task arithmetic."""

        lambda_: float = 1.0
        """Scale of the sum, finite; 1 adds the experts, 1 / K averages them."""

        def __post_init__(self) -> None:
            check_number("lambda_", self.lambda_, -math.inf)

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        return task_arithmetic(joint.cores, weights, self.config.lambda_)
