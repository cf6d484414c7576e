"""Small matrices that say everything of K low-rank updates: inner products, joint orthonormal bases, cores in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge.factors import Factors

ROWS = 512
"""Rows of tall matrices that are multiplied at once."""
RELATIVE_ZERO = 1e-10
"""Singular values below this share of the largest are rounding noise of fp32 inputs, not directions."""


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

    @classmethod
    def of(cls, factors: Sequence[Factors]) -> Products:
        """Multiply once, in fp64."""
        outputs, inputs = column_products([f.B for f in factors]), column_products([f.A.T for f in factors])
        return cls(outputs, inputs, blocks_of_ranks([f.rank for f in factors]))

    def beside(self, factors: Sequence[Factors], update: Factors) -> Products:
        """The same with one more update at the end.

        Args:
            factors: those that this was made `of`.
            update: of the same shape; a mixture of these factors needs no pass over their rows.
        """
        together = [*factors, update]
        if isinstance(update, Mixture):
            borders = mixed(self.outputs, update.mix_B), mixed(self.inputs, update.mix_A)
        else:
            borders = last_products([f.B for f in together]), last_products([f.A.T for f in together])
        blocks = blocks_of_ranks([f.rank for f in together])
        return Products(bordered(self.outputs, borders[0]), bordered(self.inputs, borders[1]), blocks)

    def gram(self) -> Tensor:
        """Inner products between the updates: (K, K) fp64, G_ij = <D_i, D_j>."""
        both = self.outputs * self.inputs
        result = torch.stack([torch.stack([both[i, j].sum() for j in self.blocks]) for i in self.blocks])
        return (result + result.T) / 2


def blocks_of_ranks(ranks: Sequence[int]) -> tuple[slice, ...]:
    """Consecutive slices of the given lengths."""
    ends = list(itertools.accumulate(ranks))
    return tuple(slice(end - rank, end) for end, rank in zip(ends, ranks, strict=True))


def bordered(square: Tensor, border: Tensor) -> Tensor:
    """The symmetric matrix that begins with `square`, (R, R), and ends with the columns `border`, (R + r, r)."""
    R = len(square)
    return torch.cat([torch.cat([square, border[:R]], dim=1), border.T.clone()])


def mixed(products: Tensor, mix: Tensor) -> Tensor:
    """[X, X M]^T (X M) from X^T X, (R, R), and M, (R, r): (R + r, r)."""
    outer = products @ mix
    return torch.cat([outer, mix.T @ outer])


def row_blocks(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """[X_1 ... X_K] in fp64 by blocks of rows, each small enough for the processor's cache; parts are (m, r_i)."""
    lying = parts[0].stride(0) == 1  # the transpose of something contiguous, and put together as such
    for start in range(0, len(parts[0]), ROWS):
        rows = slice(start, start + ROWS)
        yield (
            torch.cat([part.T[:, rows] for part in parts]).double().T
            if lying
            else torch.cat([part[rows] for part in parts], dim=1).double()
        )


def column_products(parts: Sequence[Tensor]) -> Tensor:
    """X^T X of X = [X_1 ... X_K]: (R, R) fp64; only one half is multiplied."""
    blocks = blocks_of_ranks([part.shape[1] for part in parts])
    R = blocks[-1].stop
    result = torch.zeros(R, R, dtype=torch.float64)
    for X in row_blocks(parts):
        for block in blocks:
            result[block, block.start :].addmm_(X[:, block].T, X[:, block.start :])
    return result.triu() + result.triu(1).T


def last_products(parts: Sequence[Tensor]) -> Tensor:
    """X^T X_K of X = [X_1 ... X_K]: (R, r_K) fp64."""
    R, r = sum(part.shape[1] for part in parts), parts[-1].shape[1]
    result = torch.zeros(R, r, dtype=torch.float64)
    for X in row_blocks(parts):
        result.addmm_(X.T, X[:, R - r :])
    return result


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis Q = X T of a column space, kept as its two factors: what is wanted is Q times little."""

    columns: Tensor
    """X, (m, R)."""
    mix: Tensor
    """T, (R, p) fp64."""
    own: bool
    """Whether X are the columns that the basis was made of, and not others that span the same."""

    @classmethod
    def of(cls, columns: Tensor, products: Tensor | None = None) -> tuple[Basis, Tensor]:
        """A basis of the space that some columns span, and the columns in it.

        Args:
            columns: X, (m, R), of any rank.
            products: X^T X in fp64, where it is known already.

        Returns:
            Q = X T and C (p, R) fp64, with X = Q C and Q^T Q = 1; p is the numerical rank, at least 1.

        Choice: where the columns are far from dependent, X^T X = C^T C by Cholesky gives T = C^-1 to some 1e-10 at a
            fraction of the cost of Householder's QR; else QR, and an SVD that drops what is below `RELATIVE_ZERO`.
        """
        if columns.shape[0] >= columns.shape[1]:
            products = column_products([columns]) if products is None else products
            upper, failed = torch.linalg.cholesky_ex(products, upper=True)
            if not failed:
                inverse = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
                if upper.norm() * inverse.norm() < 1e5:
                    return cls(columns, inverse, True), upper
        Q, R = torch.linalg.qr(columns.double())
        U, S, Vh = torch.linalg.svd(R, full_matrices=False)
        p = max(1, int((S > RELATIVE_ZERO * S[0]).sum()))
        return cls(Q, U[:, :p], False), S[:p, None] * Vh[:p]

    def __matmul__(self, other: Tensor) -> Tensor:
        """Q times (p, k): (m, k) fp64."""
        mixed = self.mix @ other
        return torch.cat([X @ mixed for X in row_blocks([self.columns])])

    def dense(self) -> Tensor:
        """Q itself: (m, p) fp64."""
        return torch.cat([X @ self.mix for X in row_blocks([self.columns])])


def singular(matrix: Tensor, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of a small matrix, U S V^T.

    Args:
        matrix: (p, q) fp64.
        count: how many of the largest are wanted; others may be left out. None wants all.

    Returns:
        U (p, r), S (r,) descending, V (q, r); singular values of nothing but rounding noise may be left out, at least
        one stays.

    Choice: by the eigenvectors of the smaller Gram matrix where every singular value that is wanted is above 1e-4 of
        the largest, so that squaring leaves at least eight digits of it, or noise; that takes half the time. Else by
        LAPACK's SVD.
    """
    if matrix.shape[0] > matrix.shape[1]:
        V, S, U = singular(matrix.T, count)
        return U, S, V
    eigenvalues, U = torch.linalg.eigh(matrix @ matrix.T)
    clear = int((eigenvalues > 1e-8 * eigenvalues[-1]).sum())
    noise = int((eigenvalues < 1e-13 * eigenvalues[-1]).sum())
    if clear and (clear + noise == len(eigenvalues) or (count is not None and clear >= count)):
        U = U[:, len(eigenvalues) - clear :].flip(1)
        projected = matrix.T @ U  # (q, r)
        S = projected.norm(dim=0)
        return U, S, projected / S
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U, S, Vh.T


@dataclass(frozen=True)
class Core:
    """One layer's update in orthonormal bases, D = left core right^T: a small matrix that has D's singular values."""

    left: Basis
    """Of p outputs."""
    core: Tensor
    """(p, q) fp64."""
    right: Basis
    """Of q inputs."""

    def factors(self) -> Factors:
        """The same update as factors."""
        return Factors(self.right.dense().T.float().contiguous(), (self.left @ self.core).float())


@dataclass(frozen=True)
class Cores:
    """K updates of one layer in bases that hold them all: D_i = left cores_i right^T.

    Any rule that multiplies updates from either side, adds them or takes singular vectors of them gives the same in
    this space of some R x R entries as on the dense matrices of m x n.

    Source: merging in the space of the factors, arXiv:2509.17786, section 3.
    """

    left: Basis
    """Of p outputs."""
    cores: Tensor
    """(K, p, q) fp64."""
    right: Basis
    """Of q inputs."""

    @classmethod
    def of(cls, factors: Sequence[Factors], products: Products | None = None) -> Cores:
        """From K updates of any ranks.

        Args:
            factors: the updates.
            products: of the same, where they are known already.
        """
        outputs, inputs = (products.outputs, products.inputs) if products else (None, None)
        left, R_B = Basis.of(torch.cat([f.B for f in factors], dim=1), outputs)
        right, R_A = Basis.of(torch.cat([f.A for f in factors]).T, inputs)
        ranks = [f.rank for f in factors]
        pairs = zip(R_B.split(ranks, dim=1), R_A.split(ranks, dim=1), strict=True)
        return cls(left, torch.stack([b @ a.T for b, a in pairs]), right)
