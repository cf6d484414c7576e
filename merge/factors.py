"""Task-vector algebra on low-rank factors: sums, scalings, inner products and joint bases, no matrix ever formed.

An expert's update of one linear layer is D = s B A. The scale s is folded into B once, in fp32, and from then on
different ranks, alphas and rank-stabilised scales need no further care.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    def shape(self, name: str) -> tuple[int, int]:
        """(m, n) of one module."""
        return self[name].shape

    def delta(self, name: str) -> Tensor:
        """The dense update of one module: (m, n) fp32."""
        return self[name].B @ self[name].A


class LazyVector(TaskVector):
    """A task vector whose factors are made, or read, each time they are asked for: one module in memory at a time."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], make: Callable[[str], Factors]) -> None:
        """Keep the modules' names with their (m, n), and how to get a module's factors."""
        self._modules = dict.fromkeys(sorted(shapes))
        self._shapes = shapes
        self._make = make

    @override
    def shape(self, name: str) -> tuple[int, int]:
        return self._shapes[name]

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
    shapes = {name: vectors[0].shape(name) for name in vectors[0]}
    return LazyVector(shapes, lambda name: concatenated([vector[name] for vector in vectors], weights))


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
        shapes = [vector.shape(name) for vector in vectors]
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


def lora_scale(config: Mapping[str, Any], rank: int, alpha: float) -> float:
    """The s of D = s B A: alpha / r, or alpha / sqrt(r) when rank-stabilised.

    Source: LoRA, arXiv:2106.09685, section 4.1; rsLoRA, arXiv:2312.03732, section 3.
    """
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
