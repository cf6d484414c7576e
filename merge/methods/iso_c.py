"""Iso-C: the sum of the experts with all its singular values made equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from merge.cores import Cores, Triples, singular
from merge.methods.interface import CoreMethod
from merge.methods.task_arithmetic import task_arithmetic
from merge.methods.tsv_m import RELATIVE_RANK


def iso_c(cores: Tensor, weights: Tensor, lambda_: float = 1.0) -> Triples:
    """Flatten the spectrum of the sum.

        sum_i w_i D_i = U S V^T,   M = lambda mean(S) U V^T

    Args:
        cores: (K, p, q) fp64, the experts in common bases.
        weights: (K,) fp64.
        lambda_: scale of the result.

    Returns:
        The singular value decomposition of M, (p, r), (r,) and (q, r).

    Source: Iso-C, arXiv:2502.04959.
    Choice: only over the directions that the sum has. In full space a LoRA's sum has singular values of 0 by the
        hundred, whose vectors are arbitrary, and the rule would spread most of its energy over them.
    """
    U, S, V = singular(task_arithmetic(cores, weights))
    kept = S > RELATIVE_RANK * S[0]
    kept[0] = True
    return U[:, kept], (lambda_ * S[kept].mean()).expand(int(kept.sum())), V[:, kept]


class IsoC(CoreMethod):
    """Iso-C in the core. One expert alone comes back with a flat spectrum: that is the method."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of Iso-C."""

        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Triples:
        return iso_c(joint.cores, weights, self.config.lambda_)
