"""All inner products of the columns of K low-rank updates, computed once, in fp64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge.factors import Factors

ROWS = 512
"""Rows of tall matrices that are multiplied at once."""


@dataclass(frozen=True)
class Mixture(Factors):
    """Factors made of the experts' own columns: A^T = [A_1^T ... A_K^T] mix_A and B = [B_1 ... B_K] mix_B, rounded."""

    mix_A: Tensor
    """(R, r) fp64."""
    mix_B: Tensor
    """(R, r) fp64."""


@dataclass(frozen=True)
class Products:
    """All inner products of the factors' columns of K updates: from them every figure follows, at R x R cost."""

    outputs: Tensor
    """(R, R) fp64, B^T B of the updates side by side."""
    inputs: Tensor
    """(R, R) fp64, A A^T of the updates one beneath the other."""
    blocks: tuple[slice, ...]
    """K places of the updates among the R."""

    def gram(self) -> Tensor:
        """Inner products between the updates: (K, K) fp64, G_ij = <D_i, D_j>."""
        both = self.outputs * self.inputs
        result = torch.stack([torch.stack([both[i, j].sum() for j in self.blocks]) for i in self.blocks])
        return (result + result.T) / 2


@dataclass(frozen=True)
class Stack:
    """K updates of one layer side by side, in fp64: 8 (m + n) R bytes."""

    B: Tensor
    """(m, R), [B_1 ... B_K]."""
    A: Tensor
    """(R, n), [A_1; ...; A_K]."""
    products: Products
    """Of their columns."""

    @classmethod
    def of(cls, factors: Sequence[Factors]) -> Stack:
        """Put together and multiply once."""
        B, A = side_by_side([f.B for f in factors], dim=1), side_by_side([f.A for f in factors], dim=0)
        blocks = blocks_of_ranks([f.rank for f in factors])
        return cls(B, A, Products(column_products(B), column_products(A.T), blocks))

    def beside(self, update: Factors) -> Products:
        """The products with one more update at the end; a mixture of these columns needs no pass over their rows."""
        outputs, inputs, blocks = self.products.outputs, self.products.inputs, self.products.blocks
        if isinstance(update, Mixture):
            outputs, inputs = mixed(outputs, update.mix_B), mixed(inputs, update.mix_A)
        else:
            outputs, inputs = bordered(outputs, self.B, update.B), bordered(inputs, self.A.T, update.A.T)
        R = blocks[-1].stop
        return Products(outputs, inputs, (*blocks, slice(R, R + update.rank)))


def blocks_of_ranks(ranks: Sequence[int]) -> tuple[slice, ...]:
    """Consecutive slices of the given lengths."""
    ends = list(itertools.accumulate(ranks))
    return tuple(slice(end - rank, end) for end, rank in zip(ends, ranks, strict=True))


def side_by_side(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The parts along a dimension, in fp64."""
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    whole = torch.empty(shape, dtype=torch.float64)
    for place, part in zip(whole.split([part.shape[dim] for part in parts], dim), parts, strict=True):
        place.copy_(part)
    return whole


def row_blocks(X: Tensor) -> Iterator[Tensor]:
    """(m, R) by blocks of rows, in fp64, each small enough for the processor's cache."""
    return (rows.double() for rows in X.split(ROWS))


def column_products(X: Tensor) -> Tensor:
    """X^T X of X, (m, R): (R, R) fp64; only one half is multiplied."""
    R = X.shape[1]
    result = torch.zeros(R, R, dtype=torch.float64)
    for rows in row_blocks(X):
        for start in range(0, R, 64):
            columns = slice(start, start + 64)
            result[columns, start:].addmm_(rows[:, columns].T, rows[:, start:])
    return result.triu() + result.triu(1).T


def joined(square: Tensor, across: Tensor, corner: Tensor) -> Tensor:
    """[square, across; across^T, corner] of (R, R), (R, r) and (r, r)."""
    return torch.cat([torch.cat([square, across], dim=1), torch.cat([across.T, corner], dim=1)])


def bordered(products: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """[X Y]^T [X Y] from X^T X, (R, R), X, (m, R), and Y, (m, r)."""
    across = torch.zeros(X.shape[1], Y.shape[1], dtype=torch.float64)
    for x, y in zip(row_blocks(X), row_blocks(Y), strict=True):
        across.addmm_(x.T, y)
    return joined(products, across, column_products(Y))


def mixed(products: Tensor, mix: Tensor) -> Tensor:
    """[X X M]^T [X X M] from X^T X, (R, R), and M, (R, r)."""
    across = products @ mix
    return joined(products, across, mix.T @ across)
