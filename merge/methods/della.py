"""DELLA: drop small entries more often than large ones, scale up what is left, elect signs, merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, at_least
from merge.methods.dare import draws_for, drop_and_rescale
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.ties import sum_or_elect


def keep_probabilities(task_vectors: Tensor, density: float, epsilon: float) -> Tensor:
    """Probabilities that grow with an entry's rank by magnitude within its row.

        p = density - epsilon + 2 epsilon rank / (n - 1),   rank 0 for the smallest, n - 1 for the largest

    Args:
        task_vectors: (K, rows, n).
        density: mean probability.
        epsilon: half the span.

    Returns:
        (K, rows, n) in [density - epsilon, density + epsilon].

    Source: DELLA, arXiv:2406.11617 (MAGPRUNE).
    Choice: the span is 2 epsilon around the density, as in mergekit; entries of equal magnitude rank by column.
    """
    order = task_vectors.abs().argsort(dim=-1, stable=True)
    places = torch.arange(order.shape[-1], dtype=task_vectors.dtype).expand_as(task_vectors)
    ranks = torch.empty_like(task_vectors).scatter_(-1, order, places)
    return density - epsilon + 2 * epsilon * ranks / max(1, order.shape[-1] - 1)


class Della(EntryMethod):
    """DELLA on the dense updates; which entries are dropped depends on seed, names and magnitudes alone."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of DELLA."""

        density: float = 0.5
        """Mean probability that an entry is kept."""
        epsilon: Annotated[float, at_least(0)] = 0.15
        """Half the span of probabilities; density - epsilon above 0, density + epsilon at most 1."""
        consensus: Literal["sum", "ties"] = "ties"
        """Elect signs as TIES does, or add what is left."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""
        seed: int = 0
        """The seed of the draws."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.density - self.epsilon <= 0 or self.density + self.epsilon > 1:
                raise ValueError(
                    "density - epsilon must be above 0 and density + epsilon at most 1, got "
                    f"{self.density} and {self.epsilon}"
                )

    @property
    @override
    def positive_weights(self) -> bool:
        return self.config.consensus == "ties"

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: None) -> Tensor:
        keep = keep_probabilities(tile.deltas, self.config.density, self.config.epsilon)
        return drop_and_rescale(tile.deltas, draws_for(experts, tile, self.config.seed), keep)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: None) -> Tensor:
        return sum_or_elect(sparse, weights, self.config.lambda_, self.config.consensus)
