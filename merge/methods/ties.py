"""TIES: trim what is small, elect a sign per entry, average the values that agree with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from merge.methods.interface import MergeResult, Vector, check_weights

BLOCK_ENTRIES = 2**17
"""Entries handled at once: what is made of a block stays in the processor's cache."""


def kept_threshold(blocks: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The magnitude that the largest `density` of all entries reach, exactly, without holding them together.

    Non-negative fp32 numbers are ordered as their bit patterns. One pass counts the upper 16 bits and finds the bin
    that holds the k-th largest; a second pass counts the lower 16 bits inside that bin.

    Args:
        blocks: called twice; each time the same fp32 tensors, of any shapes.
        density: fraction to keep, in [0, 1].

    Returns:
        The k-th largest magnitude, k = floor(density * entries); infinity for k = 0, and 0 for density 1.

    Raises:
        ValueError: density lies outside [0, 1].

    Source: TIES-Merging, arXiv:2306.01708, section 3 (the released code trims over all of an expert's entries).
    Choice: k as mergekit and PEFT count it; the released code keeps one entry more. Entries equal to the threshold are
        all kept, for nothing tells them apart.
    """
    check_density(density)
    if density == 1:
        return 0.0
    upper = torch.zeros(2**15, dtype=torch.int64)
    for block in blocks():
        upper += torch.bincount((magnitude_bits(block) >> 16).flatten(), minlength=2**15)
    k = int(density * upper.sum().item())
    if k == 0:
        return math.inf
    bin_, k_in_bin = nth_from_top(upper, k)
    lower = torch.zeros(2**16, dtype=torch.int64)
    for block in blocks():
        bits = magnitude_bits(block)
        lower += torch.bincount(bits[bits >> 16 == bin_] & 0xFFFF, minlength=2**16)
    low, _ = nth_from_top(lower, k_in_bin)
    return torch.tensor((bin_ << 16) | low, dtype=torch.int32).view(torch.float32).item()


def magnitude_bits(block: Tensor) -> Tensor:
    """The bit patterns of |x|, int32, ordered as |x| is."""
    return block.float().abs().view(torch.int32)


def nth_from_top(counts: Tensor, n: int) -> tuple[int, int]:
    """The bin that holds the n-th largest item (n from 1), and its place counted from the top of that bin."""
    from_top = counts.flip(0).cumsum(0)
    position = int((from_top < n).sum())
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, n - above


def trim(task_vectors: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Zero every entry below its expert's threshold: (K, *S) -> (K, *S)."""
    bounds = task_vectors.new_tensor(thresholds).reshape(-1, *[1] * (task_vectors.dim() - 1))
    return torch.where(task_vectors.abs() >= bounds, task_vectors, torch.zeros_like(task_vectors))


def elect_sign(weighted: Tensor, elect: Literal["mass", "frequency"] = "mass") -> Tensor:
    """The sign per entry that outweighs the other.

    Args:
        weighted: (K, *S), trimmed and weighted.
        elect: "mass" compares the summed magnitudes, "frequency" the numbers of experts.

    Returns:
        (*S), +1 or -1; never 0, so that a zero agrees with neither.

    Source: TIES-Merging, arXiv:2306.01708, equation (1).
    Choice: a draw elects +1, as mergekit and PEFT; the released code takes the commoner sign of the whole vector.
    """
    votes = weighted if elect == "mass" else weighted.sign()
    return torch.where(votes.sum(dim=0) >= 0, 1.0, -1.0).to(weighted.dtype)


def disjoint_mean(trimmed: Tensor, weights: Tensor, sign: Tensor) -> Tensor:
    """The weighted mean, per entry, of the values that bear the elected sign; 0 where none does.

    Args:
        trimmed: (K, *S).
        weights: (K,), above 0.
        sign: (*S), +1 or -1.

    Returns:
        (*S).

    Source: TIES-Merging, arXiv:2306.01708, section 3, disjoint merge.
    """
    w = weights.reshape(-1, *[1] * (trimmed.dim() - 1))
    agrees = trimmed.sign() == sign  # (K, *S)
    mass = (w * agrees).sum(dim=0)
    return (w * trimmed * agrees).sum(dim=0) / torch.where(mass > 0, mass, torch.ones_like(mass))


def ties(
    task_vectors: Tensor,
    *,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    lambda_: float = 1.0,
    elect: Literal["mass", "frequency"] = "mass",
) -> Tensor:
    """Merge task vectors by TIES.

        M = lambda mean_{i : sgn(t_i) = g} t_i,   g = sgn(sum_i w_i t_i),   t_i = D_i where |D_i| >= threshold_i

    Args:
        task_vectors: (K, *S) fp32.
        density: fraction of each expert's entries kept, in [0, 1]; counted over the tensor given, so that a whole
            model laid out flat is trimmed globally.
        weights: K, above 0; they count in the election and in the mean. None means 1 each. A common factor cancels.
        lambda_: scale of the result.
        elect: how signs are counted.

    Returns:
        (*S).

    Raises:
        ValueError: weights that are not above 0, or a density outside [0, 1].

    Source: TIES-Merging, arXiv:2306.01708, algorithm 1.
    Choice: the paper has no weights. They apply before the election and the mean divides by the agreeing weight, as in
        mergekit. PEFT elects unweighted and divides by the count: values +1, -2 with weights 0.9, 0.1 become -0.2
        there and +1 here. Weights of 0 or below are refused, for the divisor could vanish.
    """
    weights = [1.0] * len(task_vectors) if weights is None else weights
    check_weights(weights, len(task_vectors), positive=True)
    thresholds = [kept_threshold(lambda d=delta: [d], density) for delta in task_vectors]
    return merge_trimmed(trim(task_vectors, thresholds), weights, lambda_=lambda_, elect=elect)


def merge_trimmed(
    trimmed: Tensor, weights: Sequence[float], *, lambda_: float = 1.0, elect: Literal["mass", "frequency"] = "mass"
) -> Tensor:
    """The second half of TIES, on entries that were trimmed before: (K, *S) -> (*S)."""
    w = trimmed.new_tensor(weights)
    sign = elect_sign(trimmed * w.reshape(-1, *[1] * (trimmed.dim() - 1)), elect)
    return lambda_ * disjoint_mean(trimmed, w, sign)


def check_density(density: float) -> None:
    """Refuse a fraction outside [0, 1].

    Raises:
        ValueError: names the value.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density must lie in [0, 1] (the fraction kept), got {density}")


class Ties:
    """TIES on the dense updates, one matrix in memory at a time.

    One expert alone comes back unchanged at density 1, whatever its weight; at density 0.2 it comes back as its
    largest fifth of entries, the others zero: trimming is part of the method, also where there is nothing to merge.
    """

    @dataclass(frozen=True)
    class Config:
        """Options of TIES; the defaults are the paper's recipe without validation data."""

        density: float = 0.2
        """Fraction of an expert's entries that is kept, in [0, 1]."""
        lambda_: float = 1.0
        """Scale of the result, above 0."""
        trim: Literal["global", "tensor"] = "global"
        """Count the fraction over the whole expert, as the release does, or over each matrix, as mergekit does."""
        elect: Literal["mass", "frequency"] = "mass"
        """Elect a sign by summed magnitude, as the paper does, or by the number of experts."""

        def __post_init__(self) -> None:
            if not 0 <= self.density <= 1:
                raise ValueError(f"density must lie in [0, 1] (the fraction kept), got {self.density}")
            if not 0 < self.lambda_ < float("inf"):
                raise ValueError(f"lambda_ must be above 0 and finite, got {self.lambda_}")
            if self.trim not in ("global", "tensor") or self.elect not in ("mass", "frequency"):
                raise ValueError(
                    f'trim must be "global" or "tensor", elect "mass" or "frequency"; got {self.trim!r}, {self.elect!r}'
                )

    def __init__(self, config: Config | None = None) -> None:
        """Keep the configuration; None means the defaults."""
        self.config = config if config is not None else self.Config()

    def merge(self, vectors: Sequence[Vector], weights: Sequence[float]) -> MergeResult:
        """Merge K experts over the same modules; matrices are made as the stream is read.

        Args:
            vectors: K task vectors.
            weights: K, above 0.

        Raises:
            ValueError: weights do not fit.
        """
        check_weights(weights, len(vectors), positive=True)
        diagnostics: dict[str, Any] = {"thresholds": None, "kept_fraction": {}}
        return MergeResult(dense=self.stream(vectors, weights, diagnostics), diagnostics=diagnostics)

    def stream(
        self, vectors: Sequence[Vector], weights: Sequence[float], diagnostics: dict[str, Any]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the merged matrices by module, and note per module which fraction of each expert was kept."""
        thresholds = None
        if self.config.trim == "global":
            # Whole matrices are multiplied in every pass: other tile shapes round B A differently and could move the
            # k-th entry across its threshold. Only what follows is done in blocks of rows.
            thresholds = [kept_threshold(lambda v=v: row_blocks(v), self.config.density) for v in vectors]
            diagnostics["thresholds"] = [t if math.isfinite(t) else None for t in thresholds]
        for name in vectors[0]:
            deltas = [vector.delta(name) for vector in vectors]
            bounds = thresholds or [
                kept_threshold(lambda d=d: (d[rows] for rows in blocks_of(d)), self.config.density) for d in deltas
            ]
            merged, kept = torch.empty_like(deltas[0]), torch.zeros(len(deltas), dtype=torch.int64)
            for rows in blocks_of(merged):
                trimmed = trim(torch.stack([delta[rows] for delta in deltas]), bounds)  # (K, rows, n)
                kept += trimmed.count_nonzero(dim=(1, 2))
                merged[rows] = merge_trimmed(trimmed, weights, lambda_=self.config.lambda_, elect=self.config.elect)
            diagnostics["kept_fraction"][name] = (kept / merged.numel()).tolist()
            yield name, merged


def blocks_of(matrix: Tensor) -> list[slice]:
    """Rows in blocks of some `BLOCK_ENTRIES`."""
    step = max(1, BLOCK_ENTRIES // matrix.shape[1])
    return [slice(start, start + step) for start in range(0, matrix.shape[0], step)]


def row_blocks(vector: Vector) -> Iterator[Tensor]:
    """All dense updates of an expert, in blocks of rows."""
    for name in vector:
        delta = vector.delta(name)
        yield from (delta[rows] for rows in blocks_of(delta))
