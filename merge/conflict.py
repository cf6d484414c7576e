"""Who gains and who loses in a merge, module by module: sums that add up to the figures of the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from merge.factors import Factors

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


def signs(a: Tensor, b: Tensor, cosine: float | None, shape: tuple[int, int]) -> Signs:
    """Compare the signs of two experts on the same rows of one module.

    Args:
        a: (rows, n), rows of one expert's update.
        b: the same rows of another's.
        cosine: of the whole updates; None where one is zero.
        shape: (m, n) of the module.
    """
    if cosine is None:
        return Signs()
    m, n = shape
    scale = m / len(a)
    products = a.sign() * b.sign()
    differ = (products < 0).sum(dim=1).double() * scale
    both = (products != 0).sum(dim=1).double() * scale
    squares = tuple(x.sum().item() for x in (differ * differ, differ * both, both * both))
    chance = math.acos(min(1.0, max(-1.0, cosine))) / math.pi * m * n
    return Signs(differ.sum().item(), both.sum().item(), squares, chance, float(m * n), len(a) < m)


def cosines(products: Tensor) -> list[list[float | None]]:
    """N x N cosines from inner products; None where an expert is zero."""
    norms = products.diagonal().clamp_min(0).sqrt().tolist()
    count = range(len(norms))
    return [
        [products[i, j].item() / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else None for j in count]
        for i in count
    ]


class Products:
    """All inner products of the factors' columns of K updates: from them every figure follows, at R x R cost."""

    def __init__(self, updates: Sequence[Factors]) -> None:
        """Multiply once, in fp64."""
        B = torch.cat([f.B for f in updates], dim=1).double()
        A = torch.cat([f.A for f in updates]).double()
        self.outputs, self.inputs = B.T @ B, A @ A.T  # (R, R)
        ends = torch.tensor([f.rank for f in updates]).cumsum(0).tolist()
        self.blocks = [slice(end - f.rank, end) for end, f in zip(ends, updates, strict=True)]

    def gram(self) -> Tensor:
        """(K, K) inner products of the updates."""
        both = self.outputs * self.inputs
        result = torch.stack([torch.stack([both[i, j].sum() for j in self.blocks]) for i in self.blocks])
        return (result + result.T) / 2

    def interference(self, merged: int, expert: int) -> tuple[float, float]:
        """What one update adds to another on the inputs that the other reads.

        Returns:
            |(M - D) D^T|^2 and |D D^T|^2; the root of their ratio is 0 where the expert is undisturbed.

        Source: the loss of WUDI-Merging, arXiv:2503.08099.
        """
        m, e = self.blocks[merged], self.blocks[expert]
        inner = self.outputs[e, e]
        # (M - D) D^T = [B_M, -B] [A_M; A] A^T B^T
        left = torch.cat([self.inputs[m, e], -self.inputs[e, e]])
        both = torch.cat([self.outputs[:, m], self.outputs[:, e]], dim=1)
        both = torch.cat([both[m], both[e]])

        def squared(outer: Tensor, middle: Tensor) -> float:
            return (outer * (middle @ inner @ middle.T)).sum().clamp_min(0).item()

        return squared(both, left), squared(inner, self.inputs[e, e])

    def overlaps(self, side: Tensor, count: int) -> list[list[float]]:
        """How much of each other the first `count` updates' spaces share: 0 orthogonal, 1 contained.

            |Q_i^T Q_j|^2 / min(r_i, r_j)

        Args:
            side: `inputs` or `outputs`.
            count: K.
        """
        whitened = [whitening(side[block, block]) for block in self.blocks[:count]]
        pairs = list(zip(self.blocks[:count], whitened, strict=True))
        return [
            [(w.T @ side[a, b] @ v).square().sum().item() / min(w.shape[1], v.shape[1]) for b, v in pairs]
            for a, w in pairs
        ]


def whitening(products: Tensor) -> Tensor:
    """W (r, p) such that the columns X W are orthonormal and span X's, from X^T X (r, r); p is X's rank, at least 1."""
    E, V = torch.linalg.eigh(products)
    kept = E > 1e-12 * E[-1].clamp_min(torch.finfo(E.dtype).tiny)
    kept[-1] = True
    return V[:, kept] / E[kept].clamp_min(torch.finfo(E.dtype).tiny).sqrt()


def module_conflict(names: Sequence[str], factors: Sequence[Factors], merged: Factors) -> dict[str, Any]:
    """Everything that the report needs to know of one module, in JSON's types.

    Args:
        names: K experts.
        factors: their updates of the module.
        merged: what was written for it.

    Returns:
        gram: (K + 1, K + 1) inner products, the merged update last.
        entries: m n.
        signs: per pair "a | b", the fields of `Signs`.
        mass: |sum of the experts| and sum of |experts|, summed over entries.
        interference: per expert, see `Products.interference`.
        overlap: inputs and outputs, K x K, see `Products.overlaps`.

    Choice: evenly spaced rows instead of random ones: no generator, and the same answer every time.
    """
    m, n = factors[0].shape
    rows = torch.arange(min(m, SAMPLED_ROWS)) * m // min(m, SAMPLED_ROWS)
    sampled = torch.stack([f.B[rows] @ f.A for f in factors])  # (K, rows, n)
    products = Products([*factors, merged])
    G, K = products.gram(), len(factors)
    cosine = cosines(G)
    pairs = {
        f"{a} | {b}": vars(signs(sampled[i], sampled[i + 1 + j], cosine[i][i + 1 + j], (m, n)))
        for i, a in enumerate(names)
        for j, b in enumerate(names[i + 1 :])
    }
    scale = m / len(rows)
    return {
        "gram": G.tolist(),
        "signs": pairs,
        "entries": m * n,
        "mass": [sampled.sum(0).abs().sum().item() * scale, sampled.abs().sum().item() * scale],
        "interference": [list(products.interference(K, i)) for i in range(K)],
        "overlap": {
            "inputs": products.overlaps(products.inputs, K),
            "outputs": products.overlaps(products.outputs, K),
        },
    }


def signs_of(fields: Mapping[str, Any]) -> Signs:
    """`Signs` from JSON."""
    return Signs(**{**fields, "squares": tuple(fields["squares"])})
