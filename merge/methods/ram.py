"""RAM: average what several experts changed, keep what one alone changed.

For comparison: RAM is made for sparse updates.
The dense B A of a LoRA exceeds any small epsilon nearly everywhere; RAM then is the plain average, and with a larger
epsilon it deletes the small experts. Sparse updates come from full fine-tuning in low precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, at_least
from merge.methods.interface import EntryMethod, Experts, Tile
from merge.methods.ties import per_expert


def ram(active: Tensor, unique_scale: Tensor) -> Tensor:
    """Average shared entries, keep unique ones.

        M = sum_i D_i / c where c > 1 experts changed the entry; (1 + r clip(rho_i, 0, alpha)) D_i where only i did

    Args:
        active: (K, *S), zero where an expert's change is at most epsilon.
        unique_scale: (K,), 1 + r clip(rho, 0, alpha); 1 for RAM without +.

    Returns:
        (*S).

    Source: RAM and RAM+, arXiv:2601.13572; tensor-local counts as in mergekit's `ramplus_tl`.
    """
    count = (active != 0).sum(dim=0)
    unique = (active * per_expert(unique_scale, active)).sum(dim=0)
    return torch.where(count > 1, active.sum(dim=0) / count.clamp_min(1), unique)


class Ram(EntryMethod):
    """RAM on the dense updates, and RAM+ where r is above 0; weights multiply the updates."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of RAM."""

        epsilon: Annotated[float, at_least(0)] = 1e-5
        """Changes up to this magnitude count as none; at least 0."""
        r: Annotated[float, at_least(0)] = 0.0
        """Strength of RAM+'s compensation of unique entries; 0 is RAM."""
        alpha: Annotated[float, at_least(0)] = 0.2
        """Upper bound of the ratio of shared to unique entries in that compensation."""

    @override
    def of_module(self, experts: Experts, module: str, shared: None) -> Tensor:
        scale = torch.ones(len(experts))
        if self.config.r == 0:
            return scale
        counts = torch.zeros(2, len(experts))
        for tile in experts.tiles(module):
            changed = self.sparsify(experts, tile, None) != 0
            alone = changed.sum(dim=0) == 1
            counts += torch.stack([(changed & ~alone).sum(dim=(1, 2)), (changed & alone).sum(dim=(1, 2))])
        rho = counts[0] / counts[1].clamp_min(self.config.epsilon)
        return scale + self.config.r * rho.clamp(0, self.config.alpha)

    @override
    def sparsify(self, experts: Experts, tile: Tile, known: Tensor | None) -> Tensor:
        return torch.where(tile.deltas.abs() > self.config.epsilon, tile.deltas, 0.0)

    @override
    def fuse(self, sparse: Tensor, weights: Tensor, known: Tensor) -> Tensor:
        return ram(sparse * per_expert(weights, sparse), known)
