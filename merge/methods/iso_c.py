"""Iso-C: the sum of the experts with all its singular values made equal."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from merge.cores import singular
from merge.methods.interface import CoreMethod, check_number
from merge.methods.task_arithmetic import task_arithmetic
from merge.methods.tsv_m import RELATIVE_RANK


def iso_c(cores: Tensor, weights: Tensor, lambda_: float = 1.0) -> Tensor:
    """Flatten the spectrum of the sum.

        sum_i w_i D_i = U S V^T,   M = lambda mean(S) U V^T

    Args:
        cores: (K, p, q) fp64, the experts in common bases.
        weights: (K,) fp64.
        lambda_: scale of the result.

    Returns:
        (p, q).

    Source: Iso-C, arXiv:2502.04959.
    Choice: only over the directions that the sum has. In full space a LoRA's sum has singular values of 0 by the
        hundred, whose vectors are arbitrary, and the rule would spread most of its energy over them.
    """
    U, S, V = singular(task_arithmetic(cores, weights))
    kept = S > RELATIVE_RANK * S[0]
    return lambda_ * S[kept].mean().nan_to_num() * U[:, kept] @ V[:, kept].T


class IsoC(CoreMethod):
    """Iso-C in the core. One expert alone comes back with a flat spectrum: that is the method."""

    @dataclass(frozen=True)
    class Config:
        """Options of Iso-C."""

        lambda_: float = 1.0
        """Scale of the result, above 0."""

        def __post_init__(self) -> None:
            check_number("lambda_", self.lambda_, 0, open_low=True)

    @override
    def core(self, cores: Tensor, weights: Tensor) -> Tensor:
        return iso_c(cores, weights, self.config.lambda_)
