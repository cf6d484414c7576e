"""The clipped surrogate of PPO with two bounds (DAPO), and a third for bad rollouts (dual clip)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from lightning_modules.functional.policy_loss import clamped_log_ratio, clipped_surrogate, dual_clipped
from lightning_modules.losses.loss import PolicyLoss, TokenLoss, clipped_shares


class Clipped(PolicyLoss):
    """Ratio per token, clipped from below and above."""

    @dataclass(frozen=True)
    class Config:
        """The bounds."""

        clip_low: float = 0.2
        """ε_low of the ratio, in [0, 1]."""
        clip_high: float = 0.28
        """ε_high of the ratio, at least 0; DAPO's clip-higher."""
        dual_clip: float = math.inf
        """c, above 1: the loss of a token with A < 0 is at most −c · A; infinity leaves it out."""

        def __post_init__(self) -> None:
            if not 0 <= self.clip_low <= 1 or self.clip_high < 0 or self.dual_clip <= 1:
                raise ValueError(
                    "clip_low must lie in [0, 1], clip_high must be at least 0 and dual_clip above 1, got "
                    f"{self.clip_low}, {self.clip_high} and {self.dual_clip}"
                )

    @override
    def __call__(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, completion_mask: Tensor) -> TokenLoss:
        c = self.config
        log_ratio = clamped_log_ratio(logps, old_logps)
        surrogate = clipped_surrogate(log_ratio, advantages, clip_low=c.clip_low, clip_high=c.clip_high)
        values = dual_clipped(surrogate, advantages, c.dual_clip)
        return TokenLoss(values, clipped_shares(log_ratio.detach().exp(), c.clip_low, c.clip_high))
