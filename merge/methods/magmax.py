"""MagMax: each entry is the value of the expert that changed it most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.ties import per_expert


def magmax(task_vectors: Tensor, weights: Tensor, lambda_: float = 1.0) -> Tensor:
    """Take the winner per entry.

        M = lambda w_j D_j,   j = argmax_i |w_i D_i|

    Args:
        task_vectors: (K, *S).
        weights: (K,).
        lambda_: scale of the result.

    Returns:
        (*S).

    Source: MagMax, arXiv:2407.06322.
    Choice: of equal magnitudes with opposite signs the positive one wins, whatever the order of the experts.
    """
    weighted = task_vectors * per_expert(weights, task_vectors)
    highest, lowest = weighted.amax(dim=0), weighted.amin(dim=0)
    return lambda_ * highest.where(highest >= -lowest, lowest)


class MagMax(EntryMethod):
    """MagMax on the dense updates."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of MagMax."""

        lambda_: Annotated[float, above(0)] = 1.0
        """Scale of the result, above 0."""

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: None) -> Tensor:
        weighted = tile.deltas * per_expert(tile.deltas.new_tensor(experts.weights), tile.deltas)
        return torch.where(weighted == magmax(weighted, torch.ones(len(weighted))), tile.deltas, 0.0)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: None) -> Tensor:
        return magmax(sparse, weights, self.config.lambda_)
