"""NudgeRL's transfer: every rollout's advantage also moves its probability under the neutral prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from lightning_modules.transfer.transfer import Crossing, Transfer, check_eta


class PolicyGradientTransfer(Transfer):
    """η · ( − A_i · mean_t log π(y_{i,t} | q, neutral) ), without an importance ratio.

    Source: NudgeRL, arXiv:2605.15726, and its released trainer.
    """

    @dataclass(frozen=True)
    class Config:
        """Its weight."""

        eta: float = 0.1
        """η, above 0; 0.1 as NudgeRL."""

        def __post_init__(self) -> None:
            check_eta(self.eta)

    @override
    def __call__(self, crossing: Crossing) -> Tensor:
        return -crossing.advantages[:, None] * crossing.neutral_logps
