"""MaxRL: centred total rewards over their mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.functional.advantages import maximum_likelihood_advantages


class MaxRL(Advantage):
    """Hard questions weigh by the inverse of their success rate, as in the likelihood of being right."""

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    @override
    def __call__(self, outcome: Outcome) -> Tensor:
        return maximum_likelihood_advantages(outcome.total)
