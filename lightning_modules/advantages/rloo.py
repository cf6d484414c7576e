"""RLOO: total reward against the mean of the other rollouts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.functional.advantages import leave_one_out_advantages


class RLOO(Advantage):
    """Leave-one-out baseline over the question's whole group."""

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    @override
    def __call__(self, outcome: Outcome) -> Tensor:
        return leave_one_out_advantages(outcome.total)
