"""Keeping the policy near its reference: a term of the loss, or a part of the reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from lightning_modules.functional import policy_loss

ESTIMATORS = {"k2": policy_loss.k2_kl, "k3": policy_loss.k3_kl}


class KLPenalty(ABC):
    """A penalty on the distance to the reference. A subclass nests its `Config`, which has `beta`.

    Attributes:
        in_reward: the penalty is taken from the reward before advantages are formed, and the loss has no term.
    """

    in_reward: ClassVar[bool]
    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(self, logps: Tensor, ref_logps: Tensor) -> Tensor:
        """(B, T) nats per token, not yet multiplied by β; with gradient where it is a term of the loss."""


class InLoss(KLPenalty):
    """β times an estimator of KL(π ∥ π_ref), added to the loss under the run's own reduction."""

    in_reward = False

    @dataclass(frozen=True)
    class Config:
        """Weight and estimator."""

        beta: float = 0.02
        """β per nat, above 0; `kl: null` leaves penalty and reference pass out."""
        estimator: str = "k3"
        """`k3`, never negative and of low variance, or `k2`, whose gradient is that of the KL itself."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ValueError(f"beta must be above 0, got {self.beta}; write kl: null to leave the penalty out")
            if self.estimator == "k1":
                raise ValueError(
                    "estimator: k1 is no term of a loss: the gradient of log π has expectation zero under π, so that "
                    "it would add noise and no pull; choose 'k2' or 'k3', or lightning_modules.losses.kl.InReward"
                )
            if self.estimator not in ("k2", "k3"):
                raise ValueError(f"estimator must be 'k2' or 'k3', got {self.estimator!r}")

    @override
    def __call__(self, logps: Tensor, ref_logps: Tensor) -> Tensor:
        return ESTIMATORS[self.config.estimator](logps, ref_logps)


class InReward(KLPenalty):
    """β times k1 = log π − log π_ref, summed over a completion's tokens and taken from its reward."""

    in_reward = True

    @dataclass(frozen=True)
    class Config:
        """Weight."""

        beta: float = 0.02
        """β per nat, above 0; `kl: null` leaves penalty and reference pass out."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ValueError(f"beta must be above 0, got {self.beta}; write kl: null to leave the penalty out")

    @override
    def __call__(self, logps: Tensor, ref_logps: Tensor) -> Tensor:
        return policy_loss.k1_kl(logps, ref_logps)
