"""ACE: RegMean without data, on input covariances that are read off the experts' own updates, with a common prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from merge.cores import Cores
from merge.methods.interface import CoreMethod


def row_covariances(joint: Cores) -> Tensor:
    """Covariances of the updates' rows, each over its update's energy, in the joint basis of inputs.

        S_i = D_i^T (1 - 1 1^T / m) D_i / |D_i|^2

    Args:
        joint: K experts in common bases of m outputs and n inputs.

    Returns:
        (K, q, q) fp64, of trace 1 less the share of the mean row; 0 for an expert that is zero.

    Source: ACE-Merging, arXiv:2603.02945: the rows of an update, taken as samples, vary as the inputs did.
    Choice: over the energy and not over the trace, which is 0 where all rows are equal.
    """
    ones = joint.left.column_sums()
    m = joint.left.columns.shape[0]
    centred = joint.cores - torch.outer(ones, ones) @ joint.cores / m
    energy = joint.cores.square().sum((1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    return joint.cores.mT @ centred / energy[:, None, None]


def ace(joint: Cores, weights: Tensor, *, epsilon: float = 0.05, prior: str = "collective") -> Tensor:
    """Solve RegMean's least squares with covariances that are estimated from the updates.

        R_i = w_i (S_i + epsilon E / |D_i|^2),   C = 1 (1^T sum_i w_i S_i) / n
        M = (sum_i D_i R_i) (sum_i R_i + C)^-1

    S_i is that of `row_covariances`, E the mean of |D_i|^2. With a large epsilon M tends to the mean of the experts
    over their energies, with a small one and no prior to WUDI's minimum.

    Args:
        joint: K experts in common bases of n inputs.
        weights: (K,) fp64, above 0.
        epsilon: what is added to every direction's variance, as a share of an update's energy.
        prior: "collective" adds C, each of whose rows is the mean column of all covariances; "none" does not.

    Returns:
        (p, q) fp64. An expert that is zero has no say.

    Source: ACE-Merging, arXiv:2603.02945: covariance from the update, normalised, with regularisation that adapts to
        its scale and the collective structural prior.
    Choice: the covariances are always normalised. The paper does so above a threshold of
        Var[log |D|^2] / E[log |D|^2]^2, which depends on the unit of the weights; for the same reason epsilon is
        relative here. The paper's last step, its spectral refinement, is not done.
    """
    energy = joint.cores.square().sum((1, 2))
    moving = energy > 0
    if not moving.any():
        return torch.zeros_like(joint.cores[0])
    cores, weights = joint.cores[moving], weights[moving, None, None]
    S = weights * row_covariances(joint)[moving]
    identity = torch.eye(cores.shape[2], dtype=torch.float64)
    R = S + weights * epsilon * (energy[moving].mean() / energy[moving])[:, None, None] * identity
    total = R.sum(0)
    if prior == "collective":
        ones, n = joint.right.column_sums(), joint.right.columns.shape[0]
        total = total + torch.outer(ones, ones @ S.sum(0)) / n
    return torch.linalg.solve(total, (cores @ R).sum(0), left=False)


class Ace(CoreMethod):
    """ACE without its spectral refinement, exact in factor space."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of ACE."""

        epsilon: Annotated[float, above(0)] = 0.05
        """Variance added to every direction, as a share of an update's energy, above 0; the larger, the nearer to a
        mean. On embedded experts of one seed, 160 validation questions: 0.001 right nowhere, 0.01 28 %, 0.03 and 0.1
        46 %. An update of rank r has 1 / r in each of its directions, on average."""
        prior: Literal["collective", "none"] = "collective"
        """Shrink along what all experts read (`collective`, as published), or not."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        c = self.config
        return c.lambda_ * ace(joint, weights, epsilon=c.epsilon, prior=c.prior)
