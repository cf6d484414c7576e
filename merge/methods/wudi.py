"""WUDI: the update that disturbs every expert least on the inputs that its own update reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from merge.cores import Cores
from merge.methods.interface import CoreMethod

RELATIVE_EIGENVALUE = 1e-12
"""Eigenvalues of the interference below this share of the largest come from rounding of fp32 factors."""


def interference_form(joint: Cores, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quadratic form of the interference, diagonalised.

        L(M) = sum_i w_i |(M - D_i) D_i^T|^2 / |D_i|^2;   its minimum solves M C = N
        C = sum_i w_i D_i^T D_i / |D_i|^2 = V E V^T,   N = sum_i w_i D_i D_i^T D_i / |D_i|^2

    Args:
        joint: the experts in common bases; D_i = b_i a_i^T, so that all products pass through r_i x r_i matrices.
        weights: (K,) fp64, above 0; scaled here to a mean of 1, so that a common factor changes nothing.

    Returns:
        E (q,) descending, V (q, q), N (p, q). An expert that is zero has no say.

    Source: WUDI-Merging, arXiv:2503.08099: the rows of D_i stand for the expert's inputs.
    """
    a = torch.cat([a for _, a in joint.pairs], dim=1)  # (q, R)
    read, pulled = [], []
    for (b_i, a_i), weight in zip(joint.pairs, weights / weights.mean(), strict=True):
        outputs, inputs = b_i.T @ b_i, a_i.T @ a_i  # (r_i, r_i)
        scaled = weight / (outputs * inputs).sum().clamp_min(torch.finfo(torch.float64).tiny) * outputs
        read.append(a_i @ scaled)
        pulled.append(b_i @ inputs @ scaled)
    C, N = torch.cat(read, dim=1) @ a.T, torch.cat(pulled, dim=1) @ a.T
    E, V = torch.linalg.eigh((C + C.T) / 2)
    return E.flip(0).clamp_min(0), V.flip(1), N


def wudi(joint: Cores, weights: Tensor, lambda_: float = 1.0) -> Tensor:
    """Minimise the interference exactly, M = lambda N C^+: K experts in common bases and (K,) fp64 -> (p, q).

    Source: WUDI-Merging, arXiv:2503.08099; SWUDI, arXiv:2606.07289, for the closed form.
    Choice: the minimum itself, not 300 steps of Adam towards it; what no expert reads stays zero.
    """
    E, V, N = interference_form(joint, weights)
    kept = E > RELATIVE_EIGENVALUE * E[0]
    return lambda_ * (N @ V[:, kept] / E[kept]) @ V[:, kept].T


class Wudi(CoreMethod):
    """WUDI, exact in factor space."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of WUDI."""

        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        return wudi(joint, weights, self.config.lambda_)
