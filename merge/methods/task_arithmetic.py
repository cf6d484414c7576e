"""Task arithmetic: the scaled, weighted sum of the experts' updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import FINITE, Ranged
from merge.cores import Cores
from merge.methods.interface import CoreMethod


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
    class Config(Ranged):
        """Options of task arithmetic."""

        lambda_: Annotated[float, FINITE] = 1.0
        """Scale of the sum, finite; 1 adds the experts, 1 / K averages them."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        return task_arithmetic(joint.cores, weights, self.config.lambda_)
