"""SWUDI: WUDI's descent in closed form, stopped after a time, and only along directions that stand out of the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from merge.cores import Cores
from merge.methods.interface import CoreMethod
from merge.methods.task_arithmetic import task_arithmetic
from merge.methods.wudi import interference_form


def participation_ratio(eigenvalues: Tensor) -> int:
    """The effective number of directions, (sum E)^2 / sum E^2, rounded up; (q,) -> at least 1."""
    square_sum = eigenvalues.square().sum()
    ratio = (eigenvalues.sum().square() / square_sum).item() if square_sum > 0 else 1.0
    return max(1, int(torch.tensor(ratio - 1e-9).ceil()))


def swudi(joint: Cores, weights: Tensor, *, time: float = 300.0, directions: str = "all", init: str = "mean") -> Tensor:
    """Follow the gradient of the interference from a starting point for a time.

        M = M0 (1 - V f V^T) + N V (f / E) V^T,   f = 1 - exp(-t E) on the K leading directions, 0 on the others

    Args:
        joint: the experts in common bases.
        weights: (K,) fp64, above 0.
        time: t; the form is scaled so that E sums to K, the number of experts.
        directions: "all", or "participation" (SWUDI-A): as many as the spectrum of this layer has in effect.
        init: M0, the "mean" or the "sum" of the experts.

    Returns:
        (p, q).

    Source: SWUDI and SWUDI-A, arXiv:2606.07289; the form is that of `interference_form`.
    """
    E, V, N = interference_form(joint, weights)
    f = -torch.expm1(-time * E)
    if directions == "participation":
        f[participation_ratio(E) :] = 0
    # f / E tends to t where E vanishes.
    ratio = torch.where(E > 0, f / E.clamp_min(torch.finfo(E.dtype).tiny), 0.0)
    start = task_arithmetic(joint.cores, weights / weights.sum() if init == "mean" else weights)
    return start - start @ (V * f) @ V.T + N @ (V * ratio) @ V.T


class Swudi(CoreMethod):
    """SWUDI, exact in factor space; SWUDI-A with `directions: participation`."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of SWUDI."""

        time: Annotated[float, above(0)] = 300.0
        """Length of the descent, above 0; the longer, the closer to WUDI's minimum."""
        directions: Literal["all", "participation"] = "participation"
        """Follow all directions, or per layer as many as its spectrum has in effect (SWUDI-A)."""
        init: Literal["mean", "sum"] = "mean"
        """Where the descent starts, and what stays in directions that it does not follow."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def core(self, joint: Cores, weights: Tensor) -> Tensor:
        c = self.config
        return c.lambda_ * swudi(joint, weights, time=c.time, directions=c.directions, init=c.init)
