"""TSV-M: each expert's leading singular directions, made orthogonal to the other experts'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.cores import Cores, Triples, singular, singular_of_product
from merge.methods.interface import CoreMethod

RELATIVE_RANK = 1e-6
"""Singular values below this share of the largest are rounding noise of fp32 factors."""


def polar(stack: Tensor) -> Tensor:
    """The nearest matrix whose nonzero singular values are all 1: (p, r) -> (p, r).

    Choice: directions that occur twice leave singular values of 0 behind, whose vectors are arbitrary; they stay 0.
    """
    P, S, Q = singular(stack)
    kept = S > RELATIVE_RANK * S[0]
    return P[:, kept] @ Q[:, kept].T


def tsv_m(experts: Sequence[Triples], weights: Tensor, *, share: float = 0.0, lambda_: float = 1.0) -> Triples:
    """Orthogonalise the experts' singular vectors and put their singular values back.

        M = lambda U S V^T,   U = polar([U_1 ... U_K]),  S = diag(w_1 S_1, ..., w_K S_K),  V = polar([V_1 ... V_K])

    Args:
        experts: K singular value decompositions, in common bases.
        weights: (K,) fp64.
        share: of each expert's directions that is kept, in (0, 1]; 0 means 1 / K.
        lambda_: scale of the result.

    Returns:
        U, lambda S and V of M, K blocks one after the other.

    Source: TSV-Merge, arXiv:2412.00081.
    Choice: the paper keeps 1 / K of min(m, n) directions, which for a LoRA would be all or zeros; 1 / K of its own
        rank is counted here. An expert that is zero has no directions, and is not among the K.
    """
    moving = [(expert, w) for expert, w in zip(experts, weights, strict=True) if expert[1][0] > 0] or [
        (experts[0], weights[0])
    ]
    U, S, V = [], [], []
    for (u, s, v), weight in moving:
        rank = int((s > RELATIVE_RANK * s[0]).sum())
        k = max(1, math.ceil(rank * (share or 1 / len(moving)) - 1e-9))
        U.append(u[:, :k])
        S.append(weight * s[:k])
        V.append(v[:, :k])
    return polar(torch.cat(U, dim=1)), lambda_ * torch.cat(S), polar(torch.cat(V, dim=1))


class TsvM(CoreMethod):
    """TSV-M, exact in factor space."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of TSV-M."""

        share: Annotated[float, between(0, 1)] = 0.0
        """Share of each expert's singular directions that is kept, in [0, 1]; 0 means 1 / K, as the paper."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Triples:
        experts = [singular_of_product(*pair) for pair in joint.pairs]
        U, S, V = tsv_m(experts, weights, share=self.config.share, lambda_=self.config.lambda_)
        return singular_of_product(U * S, V)
