"""Guided rollouts must move the prompt that is used at test time: what every way of doing so is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Crossing:
    """B completions under two prompts.

    Attributes:
        neutral_logps: (B, T) nats under the neutral prompt, current policy, with gradient.
        other_logps: (B, T) nats, without gradient: under the rollout's own prompt before the first update, or, for a
            way that asks for teachers, under the teaching guideline's.
        advantages: (B,) float.
        completion_mask: (B, T) bool.
    """

    neutral_logps: Tensor
    other_logps: Tensor
    advantages: Tensor
    completion_mask: Tensor


class Transfer(ABC):
    """A term of the loss on the neutral prompt. A subclass nests its `Config`, which has `eta`, its weight.

    Attributes:
        from_teacher: it acts on neutral rollouts whose question some guideline answers better; else on all rollouts.
    """

    from_teacher: ClassVar[bool] = False
    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(self, crossing: Crossing) -> Tensor:
        """(B, T) float per token, not yet multiplied by η; its mean over each completion's tokens is what counts."""


def check_eta(eta: float) -> None:
    """Refuse a weight that does nothing.

    Raises:
        ValueError: η is not above 0.
    """
    if not eta > 0:
        raise ValueError(f"eta must be above 0, got {eta}; write transfer: null for none")
