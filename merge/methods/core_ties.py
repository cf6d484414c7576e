"""Core TIES: trim, elect and average in the experts' joint singular basis instead of on the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.cores import Cores, clear_directions, singular, squared_sum
from merge.methods.interface import CoreMethod
from merge.methods.ties import Disjoint, Elect, ties


def in_singular_bases(joint: Cores) -> tuple[Tensor, Tensor, Tensor]:
    """Turn cores into the singular bases of all experts together.

    Args:
        joint: the experts in common bases.

    Returns:
        U (p, r), the turned cores (K, r, t), V (q, t), fp64: cores_i = U turned_i V^T.

    Choice: the bases of [D_1 ... D_K] and [D_1; ...; D_K], so that the result depends on the updates alone; bases of
        the stacked B and A, as published, depend on how an update is split into factors.
    """
    U, V = joint_directions(joint.pairs), joint_directions([(a, b) for b, a in joint.pairs])
    return U, torch.stack([(U.T @ b) @ (V.T @ a).T for b, a in joint.pairs]), V


def joint_directions(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Left singular vectors of [D_1 ... D_K], D_i = b_i a_i^T, without those of nothing but rounding noise.

    Args:
        pairs: K times (p, r_i) and (q, r_i) fp64.

    Returns:
        (p, r), the leading one first.
    """
    # What is turned into these bases is rounded to fp32, so that six digits are enough.
    U = clear_directions(squared_sum(pairs), floor=1e-10)
    return singular(torch.cat([b @ a.T for b, a in pairs], dim=1))[0] if U is None else U


class CoreTies(CoreMethod):
    """TIES on the entries of the cores: of the experts' joint rank at most, where TIES on the weights is not low-rank.

    Source: merging in core space, arXiv:2509.17786, section 3; TIES-Merging, arXiv:2306.01708.
    """

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of TIES, counted over the entries of a module's core."""

        density: Annotated[float, between(0, 1)] = 0.2
        """Fraction of an expert's core entries that is kept, in [0, 1]."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""
        elect: Literal["mass", "frequency", "unit"] = "mass"
        """Elect a sign by summed magnitude, by the number of experts, or at unit norm each."""
        disjoint: Literal["weighted", "mean", "sum"] = "weighted"
        """Divide the agreeing values' sum by the agreeing weight, by the number agreeing, or not at all."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        c = self.config
        return core_ties(joint, weights, density=c.density, lambda_=c.lambda_, elect=c.elect, disjoint=c.disjoint)


def core_ties(
    joint: Cores, weights: Tensor, *, density: float, lambda_: float, elect: Elect, disjoint: Disjoint
) -> Tensor:
    """TIES in the joint singular bases: K experts in common bases and (K,) -> (p, q); options as for `ties`."""
    U, turned, V = in_singular_bases(joint)
    # fp32, in which magnitudes are ordered and counted exactly.
    merged = ties(turned.float(), weights.float(), density=density, lambda_=lambda_, elect=elect, disjoint=disjoint)
    return U @ merged.double() @ V.T
