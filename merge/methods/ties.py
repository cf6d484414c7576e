"""TIES: trim what is small, elect a sign per entry, average the values that agree with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.threshold import kept_threshold, thresholds_over

Elect = Literal["mass", "frequency", "unit"]
Disjoint = Literal["weighted", "mean", "sum"]


def per_expert(values: Tensor, like: Tensor) -> Tensor:
    """(K,) -> (K, 1, ...), to be multiplied with (K, *S)."""
    return values.to(like).reshape(-1, *[1] * (like.dim() - 1))


def trim(task_vectors: Tensor, thresholds: Tensor) -> Tensor:
    """Zero every entry below its expert's threshold: (K, *S) fp32 and (K,) -> (K, *S).

    Choice: `hardshrink` drops |x| <= a; with a the next number below the threshold, entries equal to it stay. It takes
        a twentieth of the time of a comparison and a selection.
    """
    below = torch.nextafter(thresholds, torch.zeros_like(thresholds)).tolist()
    trimmed = torch.empty_like(task_vectors)
    for out, x, a in zip(trimmed, task_vectors, below, strict=True):
        if a > 0:
            torch.hardshrink(x, a, out=out)
        else:
            out.copy_(x)
    return trimmed


def elect_sign(trimmed: Tensor, weights: Tensor, elect: Elect = "mass", norms: Tensor | None = None) -> Tensor:
    """The sign per entry that outweighs the other.

    Args:
        trimmed: (K, *S).
        weights: (K,), above 0.
        elect: "mass" compares the summed magnitudes, "frequency" the numbers of experts, "unit" the summed magnitudes
            of experts scaled to unit norm.
        norms: (K,) of the whole experts, for "unit".

    Returns:
        (*S), +1 or -1; never 0, so that a zero agrees with neither.

    Source: TIES-Merging, arXiv:2306.01708, equation (1).
    Choice: a draw elects +1, as mergekit and PEFT; the released code takes the commoner sign of the whole vector.
        "unit" is ours: by mass, an expert of a tenth of the others' norm hardly ever wins a vote.
    """
    if elect == "frequency":
        total = trimmed.sign().sum(dim=0)
    elif elect == "unit" and norms is not None:
        total = torch.tensordot(weights / norms.clamp_min(torch.finfo(torch.float32).tiny).to(weights), trimmed, dims=1)
    else:
        total = torch.tensordot(weights, trimmed, dims=1)
    return torch.copysign(torch.ones((), dtype=total.dtype), total.add_(0.0))  # -0 becomes +0


def disjoint_merge(trimmed: Tensor, weights: Tensor, sign: Tensor, disjoint: Disjoint = "weighted") -> Tensor:
    """Combine, per entry, the values that bear the elected sign; 0 where none does.

        sum_agreeing w_i t_i / z      z = sum_agreeing w_i ("weighted"), the number agreeing ("mean"), or 1 ("sum")

    Args:
        trimmed: (K, *S).
        weights: (K,), above 0.
        sign: (*S), +1 or -1.
        disjoint: the divisor.

    Returns:
        (*S).

    Source: TIES-Merging, arXiv:2306.01708, section 3, disjoint merge; "dis-mean" and "dis-sum" of the released code.
    """
    agreeing = (trimmed * sign).relu_()  # (K, *S), magnitudes; others 0
    total = torch.tensordot(weights, agreeing, dims=1) * sign
    if disjoint == "sum":
        return total
    agrees = agreeing.sign_()  # 1 or 0
    mass = agrees.sum(dim=0) if disjoint == "mean" else torch.tensordot(weights, agrees, dims=1)
    return total.div_(mass.clamp_min_(torch.finfo(mass.dtype).tiny))  # 0 over whatever where none agrees


def elect_and_merge(
    trimmed: Tensor,
    weights: Tensor,
    *,
    lambda_: float = 1.0,
    elect: Elect = "mass",
    disjoint: Disjoint = "weighted",
    norms: Tensor | None = None,
) -> Tensor:
    """The second half of TIES, on entries that were sparsified before: (K, *S) -> (*S)."""
    sign = elect_sign(trimmed, weights, elect, norms)
    return lambda_ * disjoint_merge(trimmed, weights, sign, disjoint)


def sum_or_elect(
    sparse: Tensor, weights: Tensor, lambda_: float, consensus: Literal["sum", "ties"], elect: Elect = "mass"
) -> Tensor:
    """What methods that only differ in how they sparsify end with: (K, *S) -> (*S).

    Args:
        sparse: (K, *S).
        weights: (K,).
        lambda_: scale of the result.
        consensus: "sum" adds the weighted entries; "ties" elects a sign and averages those that agree.
        elect: see `elect_sign`.
    """
    if consensus == "ties":
        return elect_and_merge(sparse, weights, lambda_=lambda_, elect=elect)
    return lambda_ * torch.tensordot(weights, sparse, dims=1)


def ties(
    task_vectors: Tensor,
    weights: Tensor,
    *,
    density: float = 0.2,
    lambda_: float = 1.0,
    elect: Elect = "mass",
    disjoint: Disjoint = "weighted",
) -> Tensor:
    """Merge task vectors by TIES.

        M = lambda mean_{i : sgn(t_i) = g} t_i,   g = sgn(sum_i w_i t_i),   t_i = D_i where |D_i| >= threshold_i

    Args:
        task_vectors: (K, *S) fp32.
        weights: (K,), above 0; they count in the election and in the mean, where a common factor cancels.
        density: fraction of each expert's entries kept, in [0, 1]; counted over the tensor given, so that a whole
            model laid out flat is trimmed globally.
        lambda_: scale of the result.
        elect: how signs are elected, see `elect_sign`.
        disjoint: how agreeing values are combined, see `disjoint_merge`.

    Returns:
        (*S).

    Source: TIES-Merging, arXiv:2306.01708, algorithm 1.
    Choice: the paper has no weights. They apply before the election and the mean divides by the agreeing weight, as in
        mergekit. PEFT elects unweighted and divides by the count: values +1, -2 with weights 0.9, 0.1 become -0.2
        there and +1 here. Weights of 0 or below are refused, for the divisor could vanish.
    """
    flat = task_vectors.flatten(1)
    norms = flat.double().norm(dim=1)
    thresholds = torch.tensor([kept_threshold(lambda d=delta: [d], density) for delta in flat])
    trimmed = trim(task_vectors, thresholds)
    return elect_and_merge(trimmed, weights, lambda_=lambda_, elect=elect, disjoint=disjoint, norms=norms)


class Known(NamedTuple):
    """What a tile's merge needs to know of the experts."""

    thresholds: Tensor
    """(K,)."""
    norms: Tensor | None
    """(K,), for the election by unit norm."""


class Ties(EntryMethod):
    """TIES on the dense updates, one matrix in memory at a time.

    One expert alone comes back unchanged at density 1, whatever its weight; at density 0.2 it comes back as its
    largest fifth of entries, the others zero: trimming is part of the method, also where there is nothing to merge.
    """

    positive_weights = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of TIES; the defaults are the paper's recipe without validation data."""

        density: Annotated[float, between(0, 1)] = 0.2
        """Fraction of an expert's entries that is kept, in [0, 1]."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""
        trim: Literal["global", "tensor"] = "global"
        """Count the fraction over the whole expert, as the release does, or over each matrix, as mergekit does."""
        elect: Literal["mass", "frequency", "unit"] = "mass"
        """Elect a sign by summed magnitude, as the paper does, by the number of experts, or at unit norm each."""
        disjoint: Literal["weighted", "mean", "sum"] = "weighted"
        """Divide the agreeing values' sum by the agreeing weight, by the number agreeing, or not at all."""

    @override
    def shared(self, experts: Experts) -> Known | None:
        return self.known(experts, experts.modules) if self.config.trim == "global" else None

    @override
    def of_module(self, experts: Experts, module: str, shared: Known | None) -> Known:
        return shared if shared is not None else self.known(experts, [module])

    def known(self, experts: Experts, modules: list[str]) -> Known:
        """Thresholds and norms over some modules."""
        thresholds = thresholds_over(experts, modules, self.config.density)
        if self.config.elect != "unit":
            return Known(thresholds, None)
        return Known(thresholds, sum(experts.squared_norms(module) for module in modules).sqrt())

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: Known) -> Tensor:
        return trim(tile.deltas, known.thresholds)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: Known) -> Tensor:
        c = self.config
        return elect_and_merge(
            sparse, weights, lambda_=c.lambda_, elect=c.elect, disjoint=c.disjoint, norms=known.norms
        )
