"""GBA's advantages: correctness compared across guidelines, adherence within each (docs/method.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.functional.advantages import guideline_based_advantages


class GuidelineBased(Advantage):
    """Group-relative advantages with a contrast between guidelines, trust, and adherence within a guideline."""

    @dataclass(frozen=True)
    class Config:
        """Options of the formula; `lambda_: 1`, `tau: .inf`, `alpha: 0` without priors is GRPO."""

        lambda_: float = 1.1
        """λ, weight of the difference between guidelines, at least 0. Below 1 credit does not cross guidelines, and
        nothing learns which of them suits a question; 1.1 as NudgeRL."""
        tau: float = math.inf
        """τ in units of the compared reward, in [0, inf]; finite values shift trust to guidelines that are right."""
        alpha: float = 0.1
        """α, weight of adherence within its guideline, in standard deviations; at least 0."""
        priors: dict[str, float] = field(default_factory=dict)
        """π by guideline name, above 0; what is not named has the weight that its file gives, 1 by default."""
        scale_by_std: bool = True
        """Divide the compared reward by the group's standard deviation; false as in Dr. GRPO."""

        def __post_init__(self) -> None:
            if self.lambda_ < 0 or self.tau < 0 or self.alpha < 0:
                raise ValueError(
                    f"lambda_, tau and alpha must be at least 0, got {self.lambda_}, {self.tau} and {self.alpha}"
                )
            if any(not (value > 0 and math.isfinite(value)) for value in self.priors.values()):
                raise ValueError(f"priors must be positive and finite, got {self.priors}")

    @override
    def __call__(self, outcome: Outcome) -> Tensor:
        c = self.config
        if strange := sorted(set(c.priors) - set(outcome.guidelines)):
            raise ValueError(f"priors names {strange}, which are not among the guidelines {list(outcome.guidelines)}")
        prior = [c.priors.get(name, own) for name, own in zip(outcome.guidelines, outcome.prior.tolist(), strict=True)]
        return guideline_based_advantages(
            outcome.between,
            outcome.within,
            outcome.guideline_of,
            lambda_=c.lambda_,
            tau=c.tau,
            alpha=c.alpha,
            prior=torch.tensor(prior, dtype=torch.float64),
            scale_by_std=c.scale_by_std,
        )
