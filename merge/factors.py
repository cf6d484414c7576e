"""Task-vector algebra on low-rank factors: sums, scalings and inner products, no matrix ever formed.

An expert's update of one linear layer is D = s B A. The scale s is folded into B once, in fp32, and from then on
different ranks, alphas and rank-stabilised scales need no further care.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


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


def add(vectors: Sequence[TaskVector], weights: Sequence[float] | None = None) -> TaskVector:
    """The weighted sum, exact by concatenation.

        sum_i w_i B_i A_i = [w_1 B_1 ... w_K B_K] [A_1; ...; A_K]

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
    return TaskVector(
        {
            name: Factors(
                torch.cat([vector[name].A for vector in vectors]),
                torch.cat([vector[name].B * w for vector, w in zip(vectors, weights, strict=True)], dim=1),
            )
            for name in vectors[0]
        }
    )


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
        for name, factors in vector.items():
            if factors.shape != vectors[0][name].shape:
                raise ValueError(
                    f"{name} is {vectors[0][name].shape} in task vector 1 and {factors.shape} in {number}; "
                    "the experts belong to different bases"
                )


def inner_product(a: Factors, b: Factors) -> float:
    """<D_a, D_b> = sum((B_a^T B_b) * (A_a A_b^T)), in fp64, without forming a D."""
    outputs = a.B.double().T @ b.B.double()  # (r_a, r_b)
    inputs = a.A.double() @ b.A.double().T  # (r_a, r_b)
    return (outputs * inputs).sum().item()


def gram(vectors: Sequence[TaskVector], name: str | None = None) -> Tensor:
    """Inner products between updates.

    Args:
        vectors: K task vectors over the same modules.
        name: one module; None sums over all of them.

    Returns:
        (K, K) fp64, G_ij = <D_i, D_j>.

    Raises:
        ValueError: modules or shapes disagree.
    """
    check_same_modules(vectors)
    K = len(vectors)
    result = torch.zeros(K, K, dtype=torch.float64)
    for module in vectors[0] if name is None else [name]:
        for i in range(K):
            for j in range(i, K):
                result[i, j] += inner_product(vectors[i][module], vectors[j][module])
    return result.triu() + result.triu(1).T


def lora_scale(config: Mapping[str, Any], rank: int, alpha: float) -> float:
    """The s of D = s B A: alpha / r, or alpha / sqrt(r) when rank-stabilised.

    Source: LoRA, arXiv:2106.09685, section 4.1; rsLoRA, arXiv:2312.03732, section 3.
    """
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
