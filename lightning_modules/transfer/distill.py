"""On-policy context distillation: the neutral prompt learns from the guideline that answers better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from lightning_modules.functional.policy_loss import k2_kl
from lightning_modules.transfer.transfer import Crossing, Transfer, check_eta


class DistillTransfer(Transfer):
    """η · reverse KL from the neutral prompt to a guideline's prompt, on neutral rollouts.

    Source: on-policy context distillation, arXiv:2602.12275.
    Choice: the teacher of a question is the guideline with the highest mean of compared reward (ties: the first
        named), and only where that is above the neutral rollouts' own mean; a question whose guidelines are no better
        teaches nothing. Per token the squared log-ratio / 2 (k2), whose gradient is that of the KL on samples of the
        student, instead of a sum over the vocabulary.
    """

    from_teacher: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Config:
        """Its weight."""

        eta: float = 1.0
        """η, above 0."""

        def __post_init__(self) -> None:
            check_eta(self.eta)

    @override
    def __call__(self, crossing: Crossing) -> Tensor:
        return k2_kl(crossing.neutral_logps, crossing.other_logps)
