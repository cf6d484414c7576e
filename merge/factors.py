"""Task-vector algebra on low-rank factors: sums, scalings, inner products and joint bases, no matrix ever formed.

An expert's update of one linear layer is D = s B A. The scale s is folded into B once, in fp32, and from then on
different ranks, alphas and rank-stabilised scales need no further care.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

ROWS = 512
"""Rows of tall matrices that are multiplied at once."""
RELATIVE_ZERO = 1e-10
"""Singular values below this share of the largest are rounding noise of fp32 inputs, not directions."""


@dataclass(frozen=True)
class Factors:
    """One layer's update D = B A."""

    A: Tensor
    """(r, n) fp32; reads the layer's inputs."""
    B: Tensor
    """(m, r) fp32; writes its outputs and carries the scale."""

    def __post_init__(self) -> None:
        if self.A.dim() != 2 or self.B.dim() != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} are not (r, n) and (m, r)")

    @property
    def rank(self) -> int:
        """The number of rank-one terms; the rank of B A is at most this."""
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of D."""
        return self.B.shape[0], self.A.shape[1]


class TaskVector(Mapping[str, Factors]):
    """An update of a whole model: module name -> factors, in the order of the names. Never changed in place."""

    def __init__(self, modules: Mapping[str, Factors]) -> None:
        """Keep the factors.

        Raises:
            ValueError: there are none.
        """
        if not modules:
            raise ValueError("a task vector needs at least one module")
        self._modules = {name: modules[name] for name in sorted(modules)}

    @override
    def __getitem__(self, name: str) -> Factors:
        return self._modules[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    @override
    def __len__(self) -> int:
        return len(self._modules)

    def __mul__(self, weight: float) -> TaskVector:
        return TaskVector({name: Factors(f.A, f.B * weight) for name, f in self.items()})

    __rmul__ = __mul__

    def __add__(self, other: TaskVector) -> TaskVector:
        return add([self, other])

    def delta(self, name: str) -> Tensor:
        """The dense update of one module: (m, n) fp32."""
        return self[name].B @ self[name].A


class LazyVector(TaskVector):
    """A task vector whose factors are made, or read, each time they are asked for: one module in memory at a time."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Factors]) -> None:
        """Keep the names and how to get a module's factors."""
        self._modules = dict.fromkeys(sorted(names))
        self._make = make

    @override
    def __getitem__(self, name: str) -> Factors:
        if name not in self._modules:
            raise KeyError(name)
        return self._make(name)


def concatenated(factors: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """The weighted sum of updates of one module, exact by concatenation; ranks add.

    sum_i w_i B_i A_i = [w_1 B_1 ... w_K B_K] [A_1; ...; A_K]
    """
    A = torch.cat([f.A for f in factors])
    return Factors(A, torch.cat([f.B * w for f, w in zip(factors, weights, strict=True)], dim=1))


def add(vectors: Sequence[TaskVector], weights: Sequence[float] | None = None) -> TaskVector:
    """The weighted sum of task vectors; see `concatenated`. A module is summed when it is asked for.

    Args:
        vectors: K task vectors over the same modules.
        weights: K factors; None means 1 each.

    Returns:
        A task vector whose rank per module is the sum of the ranks.

    Raises:
        ValueError: modules, shapes or the number of weights disagree.
    """
    weights = [1.0] * len(vectors) if weights is None else list(weights)
    check_same_modules(vectors)
    if len(weights) != len(vectors):
        raise ValueError(f"got {len(weights)} weights for {len(vectors)} task vectors")
    return LazyVector(vectors[0], lambda name: concatenated([vector[name] for vector in vectors], weights))


def check_same_modules(vectors: Sequence[TaskVector]) -> None:
    """Refuse task vectors that do not cover the same modules with the same shapes.

    Raises:
        ValueError: names the first modules that differ.
    """
    if not vectors:
        raise ValueError("no task vectors given")
    for number, vector in enumerate(vectors[1:], start=2):
        if differing := sorted(set(vector) ^ set(vectors[0])):
            raise ValueError(
                f"task vectors 1 and {number} differ in {len(differing)} modules, e.g. {differing[:3]}; "
                "were the experts trained with the same target_modules, on the same base?"
            )
    for name in vectors[0]:
        shapes = [vector[name].shape for vector in vectors]
        for number, shape in enumerate(shapes[1:], start=2):
            if shape != shapes[0]:
                raise ValueError(
                    f"{name} is {shapes[0]} in task vector 1 and {shape} in {number}; "
                    "the experts belong to different bases"
                )


def inner_product(a: Factors, b: Factors) -> float:
    """<D_a, D_b> = sum((B_a^T B_b) * (A_a A_b^T)), in fp64, without forming a D."""
    outputs = a.B.double().T @ b.B.double()  # (r_a, r_b)
    inputs = a.A.double() @ b.A.double().T  # (r_a, r_b)
    return (outputs * inputs).sum().item()


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
            update: of the same shape.
        """
        together = [*factors, update]
        return Products(
            bordered(self.outputs, last_products([f.B for f in together])),
            bordered(self.inputs, last_products([f.A.T for f in together])),
            blocks_of_ranks([f.rank for f in together]),
        )

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
                    return cls(columns, inverse), upper
        Q, R = torch.linalg.qr(columns.double())
        U, S, Vh = torch.linalg.svd(R, full_matrices=False)
        p = max(1, int((S > RELATIVE_ZERO * S[0]).sum()))
        return cls(Q, U[:, :p]), S[:p, None] * Vh[:p]

    def __matmul__(self, other: Tensor) -> Tensor:
        """Q times (p, k): (m, k) fp64."""
        mixed = self.mix @ other
        return torch.cat([X @ mixed for X in row_blocks([self.columns])])

    def dense(self) -> Tensor:
        """Q itself: (m, p) fp64."""
        return torch.cat([X @ self.mix for X in row_blocks([self.columns])])


def singular(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of a small matrix, U S V^T.

    Args:
        matrix: (p, q) fp64.

    Returns:
        U (p, r), S (r,) descending, V (q, r); singular values of nothing but rounding noise may be left out, at least
        one stays.

    Choice: by the eigenvectors of the smaller Gram matrix where every singular value is either above 1e-4 of the
        largest, so that squaring leaves at least eight digits of it, or noise; that takes half the time. Else by
        LAPACK's SVD.
    """
    if matrix.shape[0] > matrix.shape[1]:
        V, S, U = singular(matrix.T)
        return U, S, V
    eigenvalues, U = torch.linalg.eigh(matrix @ matrix.T)
    clear = int((eigenvalues > 1e-8 * eigenvalues[-1]).sum())
    noise = int((eigenvalues < 1e-13 * eigenvalues[-1]).sum())
    if clear and clear + noise == len(eigenvalues):
        U = U[:, noise:].flip(1)
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


def lora_scale(config: Mapping[str, Any], rank: int, alpha: float) -> float:
    """The s of D = s B A: alpha / r, or alpha / sqrt(r) when rank-stabilised.

    Source: LoRA, arXiv:2106.09685, section 4.1; rsLoRA, arXiv:2312.03732, section 3.
    """
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
