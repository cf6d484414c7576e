"""GBA's advantages: correctness compared across guidelines, adherence within each (docs/method.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, at_least
from lightning_modules.advantages.advantage import Advantage, Outcome
from lightning_modules.functional.advantages import guideline_based_advantages


class GuidelineBased(Advantage):
    """Group-relative advantages with a contrast between guidelines, trust, and adherence within a guideline."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of the formula; `lambda_: 1`, `tau: .inf`, `alpha: 0` without priors is GRPO."""

        lambda_: Annotated[float, at_least(0)] = 1.1
        """λ, weight of the difference between guidelines, at least 0. Below 1 credit does not cross guidelines, and
        nothing learns which of them suits a question; 1.1 as NudgeRL."""
        tau: Annotated[float, at_least(0, finite=False)] = math.inf
        """τ in units of the compared reward, in [0, inf]; finite values shift trust to guidelines that are right."""
        alpha: Annotated[float, at_least(0)] = 0.1
        """α, weight of adherence within its guideline, in standard deviations; at least 0."""
        priors: dict[str, float] = field(default_factory=dict)
        """π by guideline name, above 0; what is not named has the weight that its file gives, 1 by default."""
        scale_by_std: bool = True
        """Divide the compared reward by the group's standard deviation; false as in Dr. GRPO."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, prior in self.priors.items():
                if fault := above(0).fault(f"priors.{name}", prior):
                    raise ValueError(fault)

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
