"""The clipped surrogate of PPO with two bounds (DAPO), and a third for bad rollouts (dual clip)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, above, at_least, between
from lightning_modules.functional.policy_loss import clamped_log_ratio, clipped_surrogate, dual_clipped
from lightning_modules.losses.loss import PolicyLoss, TokenLoss, clipped_shares


class Clipped(PolicyLoss):
    """Ratio per token, clipped from below and above."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """The bounds."""

        clip_low: Annotated[float, between(0, 1)] = 0.2
        """ε_low of the ratio, in [0, 1]."""
        clip_high: Annotated[float, at_least(0)] = 0.28
        """ε_high of the ratio, at least 0; DAPO's clip-higher."""
        dual_clip: Annotated[float, above(1, finite=False)] = math.inf
        """c, above 1: the loss of a token with A < 0 is at most −c · A; infinity leaves it out."""

    @override
    def __call__(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, completion_mask: Tensor) -> TokenLoss:
        c = self.config
        log_ratio = clamped_log_ratio(logps, old_logps)
        surrogate = clipped_surrogate(log_ratio, advantages, clip_low=c.clip_low, clip_high=c.clip_high)
        values = dual_clipped(surrogate, advantages, c.dual_clip)
        return TokenLoss(values, clipped_shares(log_ratio.detach().exp(), c.clip_low, c.clip_high))
