"""What a merge method is given and hands back. A new method is one more file: a pure function and a class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


class LowRank(Protocol):
    """One module's update D = B A, the scale folded in."""

    A: Tensor
    """(r, n) fp32."""
    B: Tensor
    """(m, r) fp32."""


class Vector(Protocol):
    """An expert's update of the whole model, kept as factors: module name -> `LowRank`, in the order of the names."""

    def __getitem__(self, name: str) -> LowRank: ...

    def __iter__(self) -> Iterator[str]: ...

    def __mul__(self, weight: float) -> Vector: ...

    def __add__(self, other: Vector) -> Vector: ...

    def delta(self, name: str) -> Tensor:
        """The dense update of one module: (m, n) fp32."""
        ...


@dataclass(frozen=True)
class MergeResult:
    """Either factors, from a method that stays low-rank, or dense matrices one at a time, from one that does not."""

    vector: Vector | None = None
    """The merged update in factors."""
    dense: Iterator[tuple[str, Tensor]] | None = None
    """(module name, (m, n) fp32) in the order of the names; each may be dropped before the next is made."""
    diagnostics: dict[str, Any] = field(default_factory=dict)
    """What the method can say about itself, in JSON's types; of a stream, complete when it is exhausted."""

    def __post_init__(self) -> None:
        if (self.vector is None) == (self.dense is None):
            raise ValueError("a MergeResult holds either `vector` or `dense`, not both and not neither")


class MergeMethod(Protocol):
    """A class with a nested frozen dataclass `Config`, built as `Method(Method.Config(...))`."""

    config: Any

    def merge(self, vectors: Sequence[Vector], weights: Sequence[float]) -> MergeResult:
        """Merge K experts over the same modules.

        Args:
            vectors: K task vectors.
            weights: K finite factors.
        """
        ...


def check_weights(weights: Sequence[float], count: int, *, positive: bool) -> None:
    """Refuse weights that do not fit.

    Raises:
        ValueError: not one finite number per expert, or, where `positive`, one that is not above zero.
    """
    if count < 1 or len(weights) != count:
        raise ValueError(
            f"got {len(weights)} weights for {count} experts; expected one for each of at least one expert"
        )
    for weight in weights:
        if not math.isfinite(weight) or (positive and weight <= 0):
            raise ValueError(f"weight {weight}: expected a finite number{' above 0' if positive else ''}")
