"""LUFFY's shaping: the ratio between the two prompts, saturating, so that rare tokens still have a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above
from lightning_modules.functional.policy_loss import clamped_log_ratio, shaped_ratio
from lightning_modules.transfer.transfer import Crossing, Transfer, check_eta


class ShapedTransfer(Transfer):
    """η · ( − A_i · mean_t x_t / (x_t + γ) ),  x_t = π(y_{i,t} | q, neutral) / π_old(y_{i,t} | q, own prompt).

    Source: LUFFY, arXiv:2504.14945; there the denominator is 1, because its traces come from another model.
    """

    @dataclass(frozen=True)
    class Config(Ranged):
        """Its weight and its shape."""

        eta: float = 1.0
        """η, above 0."""
        gamma: Annotated[float, above(0)] = 0.1
        """γ, above 0; 0.1 as LUFFY."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_eta(self.eta)

    @override
    def __call__(self, crossing: Crossing) -> Tensor:
        log_ratio = clamped_log_ratio(crossing.neutral_logps, crossing.other_logps)
        return -crossing.advantages[:, None] * shaped_ratio(log_ratio, self.config.gamma)
