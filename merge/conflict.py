"""Who gains and who loses in a merge, module by module: sums that add up to the figures of the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from merge.cores import triangular_root
from merge.factors import Factors
from merge.products import Products, Stack

SAMPLED_ROWS = 64
"""Rows per matrix in which signs and masses are compared; all of them where a matrix has no more."""


@dataclass(frozen=True)
class Signs:
    """How often a pair of experts pulls an entry in opposite directions; sums over rows, which add over modules."""

    differ: float = 0.0
    """Entries, both non-zero, whose signs differ; a sampled row stands for those beside it."""
    both: float = 0.0
    """Entries, both non-zero."""
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Sums over rows of differ^2, differ both and both^2, for the standard error."""
    chance: float = 0.0
    """arccos(rho) / pi, times the module's entries."""
    entries: float = 0.0
    """The module's entries; 0 where an expert is zero."""
    sampled: bool = False
    """Whether rows were left out."""

    def __add__(self, other: Signs) -> Signs:
        squares = tuple(a + b for a, b in zip(self.squares, other.squares, strict=True))
        return Signs(
            self.differ + other.differ,
            self.both + other.both,
            squares,
            self.chance + other.chance,
            self.entries + other.entries,
            self.sampled or other.sampled,
        )

    def summary(self) -> dict[str, float | None]:
        """Rate, chance level, excess, and the rate's standard error with rows as the sampling unit.

        Two unrelated experts disagree in half of the entries, so the rate alone says little. For zero-mean Gaussian
        entries of correlation rho the chance level is arccos(rho) / pi.

        Returns:
            None for all where there is nothing to compare; the standard error is None where all rows were read.

        Source: the orthant probability of a bivariate normal, Sheppard 1899.
        """
        if self.both == 0:
            return dict.fromkeys(("rate", "chance", "excess", "standard_error"))
        rate, chance = self.differ / self.both, self.chance / self.entries
        dd, db, bb = self.squares
        error = math.sqrt(max(0.0, dd - 2 * rate * db + rate * rate * bb)) / self.both
        return {
            "rate": rate,
            "chance": chance,
            "excess": rate - chance,
            "standard_error": error if self.sampled else None,
        }


def sign_counts(sampled: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries per row of a pair of experts differ in sign, and how many are both non-zero.

    Args:
        sampled: (K, rows, n), the same rows of K updates; n below 2^24, so that fp32 counts exactly.

    Returns:
        (rows, K, K) fp64 each.
    """
    sign = sampled.sign().transpose(0, 1)  # (rows, K, n)
    agreement = sign @ sign.mT  # those that agree less those that differ
    both = sign.abs_() @ sign.mT
    return (both - agreement).double() / 2, both.double()


def signs(differ: Tensor, both: Tensor, cosine: float | None, shape: tuple[int, int]) -> Signs:
    """Compare the signs of two experts on the same rows of one module.

    Args:
        differ: (rows,) fp64, entries of a row that differ in sign.
        both: (rows,) fp64, entries of a row that are both non-zero.
        cosine: of the whole updates; None where one is zero.
        shape: (m, n) of the module.
    """
    if cosine is None:
        return Signs()
    m, n = shape
    scale = m / len(both)
    differ, both = differ * scale, both * scale
    squares = tuple(x.sum().item() for x in (differ * differ, differ * both, both * both))
    chance = math.acos(min(1.0, max(-1.0, cosine))) / math.pi * m * n
    return Signs(differ.sum().item(), both.sum().item(), squares, chance, float(m * n), scale > 1)


def cosines(products: Tensor) -> list[list[float | None]]:
    """N x N cosines from inner products; None where an expert is zero."""
    norms = products.diagonal().clamp_min(0).sqrt().tolist()
    count = range(len(norms))
    return [
        [products[i, j].item() / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else None for j in count]
        for i in count
    ]


def interference(products: Products, merged: int, expert: int) -> tuple[float, float]:
    """What one update adds to another on the inputs that the other reads.

    Returns:
        |(M - D) D^T|^2 and |D D^T|^2; the root of their ratio is 0 where the expert is undisturbed.

    Source: the loss of WUDI-Merging, arXiv:2503.08099.
    """
    outputs, inputs = products.outputs, products.inputs
    m, e = products.blocks[merged], products.blocks[expert]
    inner = outputs[e, e]
    # (M - D) D^T = [B_M, -B] [A_M; A] A^T B^T
    left = torch.cat([inputs[m, e], -inputs[e, e]])
    both = torch.cat([outputs[:, m], outputs[:, e]], dim=1)
    both = torch.cat([both[m], both[e]])

    def squared(outer: Tensor, middle: Tensor) -> float:
        return (outer * (middle @ inner @ middle.T)).sum().clamp_min(0).item()

    return squared(both, left), squared(inner, inputs[e, e])


def overlaps(side: Tensor, blocks: Sequence[slice]) -> list[list[float]]:
    """How much of each other the updates' spaces share: 0 orthogonal, 1 contained.

        |Q_i^T Q_j|^2 / min(r_i, r_j)

    Args:
        side: (R, R), `inputs` or `outputs` of the updates' `Products`.
        blocks: their places.
    """
    whitenings = [whitening(side[block, block]) for block in blocks]
    found = torch.zeros(len(blocks), len(blocks), dtype=side.dtype)
    for i, (block, w) in enumerate(zip(blocks, whitenings, strict=True)):
        rows = w.T @ side[block, block.start :]  # (p_i, R - those before)
        parts = rows.split([b.stop - b.start for b in blocks[i:]], dim=1)
        for j, (part, v) in enumerate(zip(parts, whitenings[i:], strict=True), start=i):
            found[i, j] = found[j, i] = (part @ v).square().sum() / min(w.shape[1], v.shape[1])
    return found.tolist()


def whitening(products: Tensor) -> Tensor:
    """W (r, p) such that the columns X W are orthonormal and span X's, from X^T X (r, r); p is X's rank, at least 1."""
    if (found := triangular_root(products)) is not None:
        return found[1]
    E, V = torch.linalg.eigh(products)
    kept = E > 1e-12 * E[-1].clamp_min(torch.finfo(E.dtype).tiny)
    kept[-1] = True
    return V[:, kept] / E[kept].clamp_min(torch.finfo(E.dtype).tiny).sqrt()


def spread(m: int, count: int) -> Tensor:
    """At most `count` of m row numbers, ascending: one from each of as many equal strata, at places that never repeat.

    Equal distances would not do: rows come in heads of 64 or 128, and the sample could be the first of every head.
    """
    count = min(m, count)
    strata = torch.arange(count)
    return strata * m // count + (strata * 40503 % 65536 * (m // count)) // 65536  # the multiplier of Fibonacci hashing


def between_experts(names: Sequence[str], factors: Sequence[Factors], products: Products) -> dict[str, Any]:
    """What one module's experts are to each other, whatever becomes of them, in JSON's types.

    Args:
        names: K experts.
        factors: their updates of the module.
        products: of the same.

    Returns:
        entries: m n.
        signs: per pair "a | b", the fields of `Signs`.
        mass: |sum of the experts| and sum of |experts|, summed over entries.
        overlap: inputs and outputs, K x K, see `overlaps`.

    Choice: rows that depend on m alone instead of random ones: no generator, and the same answer every time.
    """
    m, n = factors[0].shape
    rows = spread(m, SAMPLED_ROWS)
    sampled = torch.stack([f.B[rows] @ f.A for f in factors])  # (K, rows, n)
    cosine = cosines(products.gram())
    differ, both = sign_counts(sampled)
    pairs = {
        f"{a} | {b}": vars(signs(differ[:, i, j], both[:, i, j], cosine[i][j], (m, n)))
        for i, a in enumerate(names)
        for j, b in enumerate(names[i + 1 :], start=i + 1)
    }
    scale = m / len(rows)
    return {
        "signs": pairs,
        "entries": m * n,
        "mass": [sampled.sum(0).abs().sum().item() * scale, sampled.abs().sum().item() * scale],
        "overlap": {
            "inputs": overlaps(products.inputs, products.blocks),
            "outputs": overlaps(products.outputs, products.blocks),
        },
    }


def with_merged(stack: Stack, merged: Factors) -> dict[str, Any]:
    """What became of one module's experts, in JSON's types.

    Args:
        stack: K updates of the module.
        merged: what was written for it.

    Returns:
        gram: (K + 1, K + 1) inner products, the merged update last.
        interference: per expert, see `interference`.
    """
    both = stack.beside(merged)
    K = len(both.blocks) - 1
    return {"gram": both.gram().tolist(), "interference": [list(interference(both, K, i)) for i in range(K)]}


def signs_of(fields: Mapping[str, Any]) -> Signs:
    """`Signs` from JSON."""
    return Signs(**{**fields, "squares": tuple(fields["squares"])})
