"""KnOTS: align the experts by one singular value decomposition of all of them, then merge the aligned parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.cores import Cores, singular
from merge.factors import Factors
from merge.methods.interface import Experts, MergeMethod, Update
from merge.methods.task_arithmetic import task_arithmetic
from merge.methods.ties import ties


def aligned(joint: Cores) -> tuple[Tensor, Tensor]:
    """Express the experts in one output basis.

        [D_1 ... D_K] = U S [V_1 ... V_K]^T,   D_i = U (S V_i^T)

    Args:
        joint: the experts in common bases.

    Returns:
        U (m, r) and the parts S V_i^T (K, r, n), fp64.

    Source: KnOTS, arXiv:2410.19735.
    """
    K, _, q = joint.cores.shape
    U, S, V = singular(torch.cat(list(joint.cores), dim=1))
    parts = (V * S).T.unflatten(1, (K, q)).transpose(0, 1)  # (K, r, q)
    return joint.left @ U, parts @ joint.right.dense().T


class Knots(MergeMethod):
    """KnOTS with TIES, or with the weighted sum, on the aligned parts; one expert alone is only trimmed."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of KnOTS."""

        consensus: Literal["ties", "sum"] = "ties"
        """How the aligned parts are merged; "sum" equals task arithmetic."""
        density: Annotated[float, between(0, 1)] = 0.2
        """Fraction of an expert's aligned entries kept before TIES, per module, in [0, 1]."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        weights, c = torch.tensor(experts.weights), self.config

        def module(name: str) -> Update:
            U, parts = aligned(experts.cores(name))
            if c.consensus == "sum":
                merged = task_arithmetic(parts.float(), weights, c.lambda_)
            else:
                merged = ties(parts.float(), weights, density=c.density, lambda_=c.lambda_)
            return Update(Factors(merged, U.float()))

        return module
