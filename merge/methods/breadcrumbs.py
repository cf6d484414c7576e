"""Model Breadcrumbs: leave out the outliers and what is negligible, then add or merge by TIES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.threshold import thresholds_over
from merge.methods.ties import per_expert, sum_or_elect


def band(task_vectors: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Keep magnitudes in [low, high): (K, *S) and (K,) twice -> (K, *S)."""
    magnitudes = task_vectors.abs()
    inside = (magnitudes >= per_expert(low, magnitudes)) & (magnitudes < per_expert(high, magnitudes))
    return torch.where(inside, task_vectors, 0.0)


class Breadcrumbs(EntryMethod):
    """Per matrix and expert, the largest share `gamma` is dropped, the next `density` kept, the rest dropped.

    Source: Model Breadcrumbs, arXiv:2312.06795.
    Choice: shares are counted as in mergekit; entries of equal magnitude at a bound go together.
    """

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of Breadcrumbs."""

        density: Annotated[float, between(0, 1, open_low=True)] = 0.9
        """Share of entries kept, in (0, 1]."""
        gamma: Annotated[float, between(0, 1)] = 0.01
        """Share of the largest entries dropped; density + gamma at most 1."""
        consensus: Literal["sum", "ties"] = "sum"
        """Add what is left, or elect signs as TIES does."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.density + self.gamma > 1:
                raise ValueError(f"density + gamma must be at most 1, got {self.density} and {self.gamma}")

    @property
    @override
    def positive_weights(self) -> bool:
        return self.config.consensus == "ties"

    @override
    def of_module(self, experts: Experts, module: str, shared: None) -> tuple[Tensor, Tensor]:
        size = experts.factors(module)[0].shape
        # Both counts are rounded down apart, so that they add to what mergekit keeps.
        n = size[0] * size[1]
        kept, top = int(self.config.density * n), int(self.config.gamma * n)
        low = thresholds_over(experts, [module], (kept + top) / n)
        return low, thresholds_over(experts, [module], top / n)

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: tuple[Tensor, Tensor]) -> Tensor:
        return band(tile.deltas, *known)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: tuple[Tensor, Tensor]) -> Tensor:
        return sum_or_elect(sparse, weights, self.config.lambda_, self.config.consensus)
