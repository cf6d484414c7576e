"""Joint orthonormal bases of K low-rank updates, and the small matrices that they are between these bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge.factors import Factors
from merge.products import Stack, column_products, row_blocks

RELATIVE_ZERO = 1e-10
"""Singular values below this share of the largest are rounding noise of fp32 inputs, not directions."""


def triangular_root(products: Tensor) -> tuple[Tensor, Tensor] | None:
    """C and C^-1, upper triangular, with X^T X = C^T C; None where X's columns are near to dependent.

    Args:
        products: X^T X, (R, R) fp64.
    """
    upper, failed = torch.linalg.cholesky_ex(products, upper=True)
    if failed:
        return None
    inverse = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
    return (upper, inverse) if upper.norm() * inverse.norm() < 1e5 else None


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

        Choice: where the columns are far from dependent, X^T X = C^T C by Cholesky gives T = C^-1 to 1e-7 or better
            at a fraction of the cost of Householder's QR; else QR, and an SVD that drops what is below `RELATIVE_ZERO`.
        """
        if columns.shape[0] >= columns.shape[1]:
            products = column_products(columns) if products is None else products
            if (found := triangular_root(products)) is not None:
                upper, inverse = found
                return cls(columns, inverse, True), upper
        Q, R = torch.linalg.qr(columns.double())
        U, S, Vh = torch.linalg.svd(R, full_matrices=False)
        p = max(1, int((S > RELATIVE_ZERO * S[0]).sum()))
        return cls(Q, U[:, :p], False), S[:p, None] * Vh[:p]

    def __matmul__(self, other: Tensor) -> Tensor:
        """Q times (p, k): (m, k) fp64."""
        mixed = (self.mix @ other).T.contiguous()
        return torch.cat([mixed @ X.T for X in row_blocks(self.columns)], dim=1).T

    def column_sums(self) -> Tensor:
        """1^T Q: (p,) fp64."""
        return sum(X.sum(0) for X in row_blocks(self.columns)) @ self.mix

    def dense(self) -> Tensor:
        """Q itself: (m, p) fp64."""
        return torch.cat([X @ self.mix for X in row_blocks(self.columns)])


Triples = tuple[Tensor, Tensor, Tensor]
"""U (p, r), S (r,) descending and V (q, r), the singular value decomposition U S V^T."""


def clear_directions(products: Tensor, count: int | None = None, *, floor: float = 1e-8) -> Tensor | None:
    """Left singular vectors of a matrix from its Gram matrix M M^T, (p, p) fp64; None where that is not precise.

    Args:
        products: M M^T.
        count: how many of the leading ones are wanted; others may be left out. None wants all.
        floor: share of the largest eigenvalue; at 1e-8, singular values of 1e-4 of the largest, squaring leaves at
            least eight digits.

    Returns:
        (p, r), the leading one first, of those above the floor; None where one that is wanted lies below it and is not
        mere noise.
    """
    eigenvalues, U = torch.linalg.eigh(products)
    clear = int((eigenvalues > floor * eigenvalues[-1]).sum())
    noise = int((eigenvalues < 1e-13 * eigenvalues[-1]).sum())
    if clear and (clear + noise == len(eigenvalues) or (count is not None and clear >= count)):
        return U[:, len(eigenvalues) - clear :].flip(1)[:, :count]
    return None


def singular(matrix: Tensor, count: int | None = None) -> Triples:
    """Singular value decomposition of a small matrix, U S V^T.

    Args:
        matrix: (p, q) fp64.
        count: how many of the largest are wanted; others may be left out. None wants all.

    Returns:
        U (p, r), S (r,) descending, V (q, r); what is not wanted and singular values of nothing but rounding noise may
        be left out, at least one stays.

    Choice: by the eigenvectors of the smaller Gram matrix where they are precise (`clear_directions`), which takes half
        the time; else by LAPACK's SVD.
    """
    if matrix.shape[0] > matrix.shape[1]:
        V, S, U = singular(matrix.T, count)
        return U, S, V
    if (U := clear_directions(matrix @ matrix.T, count)) is not None:
        projected = matrix.T @ U  # (q, r)
        S = projected.norm(dim=0)
        return U, S, projected / S
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U, S, Vh.T


def singular_of_product(left: Tensor, right: Tensor) -> Triples:
    """Singular value decomposition of left right^T, (p, r) and (q, r) fp64, at the cost of its rank."""
    Q_left, R_left = torch.linalg.qr(left)
    Q_right, R_right = torch.linalg.qr(right)
    U, S, V = singular(R_left @ R_right.T)
    return Q_left @ U, S, Q_right @ V


def squared_sum(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """sum_i D_i D_i^T of D_i = b_i a_i^T: K times (p, r_i) and (q, r_i) -> (p, p)."""
    products = torch.cat([b @ (a.T @ a) for b, a in pairs], dim=1) @ torch.cat([b for b, _ in pairs], dim=1).T
    return (products + products.T) / 2


@dataclass(frozen=True)
class Core:
    """One layer's update in orthonormal bases, D = left core right^T: a small matrix that has D's singular values."""

    left: Basis
    """The basis of the p outputs."""
    core: Tensor
    """(p, q) fp64."""
    right: Basis
    """The basis of the q inputs."""
    triples: Triples | None = None
    """The singular triples of the core, where they are known."""

    def factors(self) -> Factors:
        """The same update as factors."""
        return Factors(self.right.dense().T.float().contiguous(), (self.left @ self.core).float().contiguous())


@dataclass(frozen=True)
class Cores:
    """K updates of one layer in bases that hold them all: D_i = left cores_i right^T.

    Any rule that multiplies updates from either side, adds them or takes singular vectors of them gives the same in
    this space of some R x R entries as on the dense matrices of m x n.

    Source: merging in the space of the factors, arXiv:2509.17786, section 3.
    """

    left: Basis
    """The basis of the p outputs."""
    cores: Tensor
    """(K, p, q) fp64."""
    right: Basis
    """The basis of the q inputs."""
    pairs: tuple[tuple[Tensor, Tensor], ...]
    """K times (p, r_i) and (q, r_i) fp64, whose products b_i a_i^T the cores are."""

    @classmethod
    def of(cls, stack: Stack) -> Cores:
        """From K updates of any ranks."""
        left, R_B = Basis.of(stack.B, stack.products.outputs)
        right, R_A = Basis.of(stack.A.T, stack.products.inputs)
        pairs = tuple((R_B[:, block], R_A[:, block]) for block in stack.products.blocks)
        return cls(left, torch.stack([b @ a.T for b, a in pairs]), right, pairs)
