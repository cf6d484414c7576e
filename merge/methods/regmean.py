"""RegMean: the update whose outputs come closest to every expert's, on that expert's own inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.factors import Factors
from merge.methods.interface import Experts, MergeMethod, Update


def regmean(
    factors: Sequence[Factors],
    grams: Iterable[Tensor],
    weights: Sequence[float],
    *,
    off_diagonal: float = 0.95,
    ridge: float = 1e-6,
) -> Factors:
    """Solve the least-squares problem over all experts' inputs.

        M = argmin sum_i w_i |X_i (M - D_i)^T|^2 = (sum_i w_i D_i H_i) (sum_i w_i H_i)^-1
          = [B_1 ... B_K] ([w_1 A_1 H_1; ...; w_K A_K H_K] (sum_i w_i H_i)^-1)

    H_i is G_i = X_i^T X_i with its off-diagonal entries scaled.

    Args:
        factors: K updates of one module.
        grams: K matrices (n, n), the mean of x x^T over the expert's own tokens; taken one at a time.
        weights: K, above 0.
        off_diagonal: factor on the entries beside the diagonal, in [0, 1].
        ridge: added to the diagonal, as a share of its mean.

    Returns:
        Factors of rank sum r_i: the result never leaves the space that the experts write to.

    Raises:
        ValueError: a Gram matrix has another size than the module's inputs.

    Source: RegMean, arXiv:2212.09849, with its scaling of off-diagonal entries.
    Choice: on updates instead of weights, which is the same for one base, and keeps the result a LoRA.
    """
    n = factors[0].shape[1]
    total, read = torch.zeros(n, n, dtype=torch.float64), []
    for f, g, w in zip(factors, grams, weights, strict=True):  # one (n, n) at a time: n is 18944 in a model of 7B
        if g.shape != (n, n):
            raise ValueError(f"Gram matrix of shape {tuple(g.shape)} for a module with {n} inputs")
        H = off_diagonal_scaled(g.double(), off_diagonal).mul_(w)
        total += H
        read.append(f.A.double() @ H)
        del g, H  # before the next is read
    total.diagonal().add_(ridge * total.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny))
    A = torch.cholesky_solve(torch.cat(read).T, torch.linalg.cholesky(total)).T
    return Factors(A.float(), torch.cat([f.B for f in factors], dim=1))


def off_diagonal_scaled(gram: Tensor, factor: float) -> Tensor:
    """Scale all entries beside the diagonal: (n, n) -> (n, n)."""
    scaled = factor * gram
    scaled.diagonal().copy_(gram.diagonal())
    return scaled


class RegMean(MergeMethod):
    """RegMean on task vectors. Needs data: each expert's Gram matrices, from its own rows under its own weights."""

    needs_grams = True
    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of RegMean."""

        off_diagonal: Annotated[float, between(0, 1)] = 0.95
        """Factor on the Gram matrices' entries beside the diagonal, in [0, 1]; 0 weighs inputs one by one."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""
        ridge: Annotated[float, above(0)] = 1e-6
        """Share of the mean diagonal entry added to the diagonal, above 0; inputs that never vary are left alone."""

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        c, grams = self.config, experts.grams
        if grams is None or set(grams) != set(experts.names):
            raise ValueError(f"Gram matrices of {sorted(grams or ())} are given; experts: {sorted(experts.names)}")

        def module(name: str) -> Update:
            read = (grams[expert][name] for expert in experts.names)
            merged = regmean(experts.factors(name), read, experts.weights, off_diagonal=c.off_diagonal, ridge=c.ridge)
            return Update(Factors(merged.A * c.lambda_, merged.B))

        return module
