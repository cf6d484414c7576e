"""CISPO: the importance ratio is a clipped weight on the log-likelihood, and every token keeps its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, at_least, between
from lightning_modules.functional.policy_loss import clamped_log_ratio, weighted_log_likelihood
from lightning_modules.losses.loss import PolicyLoss, TokenLoss, clipped_shares


class CISPO(PolicyLoss):
    """REINFORCE with a truncated importance weight."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Bounds of the weight."""

        clip_low: Annotated[float, between(0, 1)] = 1.0
        """ε_low, in [0, 1]; 1 sets no lower bound, as published."""
        clip_high: Annotated[float, at_least(0)] = 0.28
        """ε_high, at least 0; the paper tunes it and publishes none."""

    @override
    def __call__(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, completion_mask: Tensor) -> TokenLoss:
        c = self.config
        log_ratio = clamped_log_ratio(logps, old_logps)
        values = weighted_log_likelihood(log_ratio, logps, advantages, clip_low=c.clip_low, clip_high=c.clip_high)
        return TokenLoss(values, clipped_shares(log_ratio.detach().exp(), c.clip_low, c.clip_high))
