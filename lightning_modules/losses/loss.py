"""What every policy loss is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TokenLoss:
    """A loss per token, before any reduction.

    Attributes:
        values: (B, T) float, with gradient.
        shares: name -> (B, T) bool, of which the share of tokens is reported as `train/<name>`.
    """

    values: Tensor
    shares: Mapping[str, Tensor] = field(default_factory=dict)


class PolicyLoss(ABC):
    """A clipped policy-gradient objective. A subclass nests its `Config` and is named by its class path."""

    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(self, logps: Tensor, old_logps: Tensor, advantages: Tensor, completion_mask: Tensor) -> TokenLoss:
        """The loss of a micro-batch.

        Args:
            logps: (B, T) nats, current policy, with gradient.
            old_logps: (B, T) nats, before the first update on these rollouts.
            advantages: (B,) float.
            completion_mask: (B, T) bool, True where a token counts.
        """


def clipped_shares(ratio: Tensor, clip_low: float, clip_high: float) -> dict[str, Tensor]:
    """Where a ratio lies outside of its bounds: (B, T) bool each."""
    return {"clip_fraction/low": ratio < 1 - clip_low, "clip_fraction/high": ratio > 1 + clip_high}
