"""GSPO: one importance ratio per completion, the mean over its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from guards.ranges import Ranged, at_least, between
from lightning_modules.functional.policy_loss import clamped_log_ratio, clipped_surrogate, sequence_log_ratio
from lightning_modules.losses.loss import PolicyLoss, TokenLoss, clipped_shares


class GSPO(PolicyLoss):
    """The clipped surrogate of the sequence's ratio; each token keeps its own gradient (GSPO-token)."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """The bounds; as published they are narrow, because a mean over tokens moves little."""

        clip_low: Annotated[float, between(0, 1)] = 3e-4
        """ε_low of the ratio, in [0, 1]."""
        clip_high: Annotated[float, at_least(0)] = 4e-4
        """ε_high of the ratio, at least 0."""

    @override
    def __call__(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, completion_mask: Tensor) -> TokenLoss:
        c = self.config
        log_ratio = sequence_log_ratio(clamped_log_ratio(logps, old_logps), completion_mask)
        values = clipped_surrogate(log_ratio, advantages, clip_low=c.clip_low, clip_high=c.clip_high)
        return TokenLoss(values, clipped_shares(log_ratio.detach().exp(), c.clip_low, c.clip_high))
