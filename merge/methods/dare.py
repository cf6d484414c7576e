"""DARE: drop entries at random, scale up what is left, then add or merge by TIES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, between
from merge.methods.draws import uniform
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.ties import sum_or_elect


def drop_and_rescale(task_vectors: Tensor, draws: Tensor, keep: Tensor | float) -> Tensor:
    """Keep entries with a probability and divide them by it, so that every entry's expectation stays.

        t = D / p where u < p, else 0

    Args:
        task_vectors: (K, *S).
        draws: (K, *S) uniform in [0, 1).
        keep: p, broadcastable, above 0.

    Returns:
        (K, *S).

    Source: DARE, arXiv:2311.03099.
    Choice: 1 / p as in the paper; mergekit scales to the L1 norm before instead, which is close to 1 / p on large
        matrices.
    """
    return torch.where(draws < keep, task_vectors / keep, 0.0)


def draws_for(experts: Experts, tile: Tile, seed: int) -> Tensor:
    """(K, rows, n) uniform numbers in [0, 1)."""
    columns = tile.deltas.shape[2]
    return torch.stack([uniform(seed, name, tile.module, tile.rows, columns) for name in experts.names])


class Dare(EntryMethod):
    """DARE on the dense updates; which entries are dropped depends on seed and names alone."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of DARE."""

        density: Annotated[float, between(0, 1, open_low=True)] = 0.2
        """p, the probability that an entry is kept, in (0, 1]."""
        consensus: Literal["sum", "ties"] = "sum"
        """Add what is left, or elect signs as TIES does."""
        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""
        seed: int = 0
        """The seed of the draws."""

    @property
    @override
    def positive_weights(self) -> bool:
        return self.config.consensus == "ties"

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: None) -> Tensor:
        return drop_and_rescale(tile.deltas, draws_for(experts, tile, self.config.seed), self.config.density)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: None) -> Tensor:
        return sum_or_elect(sparse, weights, self.config.lambda_, self.config.consensus)
