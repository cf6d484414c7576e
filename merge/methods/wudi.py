"""WUDI: the update that disturbs every expert least on the inputs that its own update reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from merge.methods.interface import CoreMethod, check_number

RELATIVE_EIGENVALUE = 1e-12
"""Eigenvalues of the interference below this share of the largest come from rounding of fp32 factors."""


def interference_form(cores: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quadratic form of the interference, diagonalised.

        L(M) = sum_i w_i |(M - D_i) D_i^T|^2 / |D_i|^2;   its minimum solves M C = N
        C = sum_i w_i D_i^T D_i / |D_i|^2 = V E V^T,   N = sum_i w_i D_i D_i^T D_i / |D_i|^2

    Args:
        cores: (K, p, q) fp64, the experts in common bases.
        weights: (K,) fp64, above 0; scaled here to a mean of 1, so that a common factor changes nothing.

    Returns:
        E (q,) descending, V (q, q), N (p, q). An expert that is zero has no say.

    Source: WUDI-Merging, arXiv:2503.08099: the rows of D_i stand for the expert's inputs.
    """
    w = weights / weights.mean() / cores.square().sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    C = torch.einsum("k,kpq,kpr->qr", w, cores, cores)
    N = torch.einsum("k,kpq,krq,krs->ps", w, cores, cores, cores)
    E, V = torch.linalg.eigh(C)
    return E.flip(0).clamp_min(0), V.flip(1), N


def wudi(cores: Tensor, weights: Tensor, lambda_: float = 1.0) -> Tensor:
    """Minimise the interference exactly, M = lambda N C^+: (K, p, q) and (K,) -> (p, q).

    Source: WUDI-Merging, arXiv:2503.08099; SWUDI, arXiv:2606.07289, for the closed form.
    Choice: the minimum itself, not 300 steps of Adam towards it; what no expert reads stays zero.
    """
    E, V, N = interference_form(cores, weights)
    kept = E > RELATIVE_EIGENVALUE * E[0]
    return lambda_ * (N @ V[:, kept] / E[kept]) @ V[:, kept].T


class Wudi(CoreMethod):
    """WUDI, exact in factor space."""

    positive_weights = True

    @dataclass(frozen=True)
    class Config:
        """Options of WUDI."""

        lambda_: float = 1.0
        """Scale of the result, above 0."""

        def __post_init__(self) -> None:
            check_number("lambda_", self.lambda_, 0, open_low=True)

    @override
    def core(self, cores: Tensor, weights: Tensor) -> Tensor:
        return wudi(cores, weights, self.config.lambda_)
