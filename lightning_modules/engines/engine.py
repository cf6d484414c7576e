"""What writes the rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion


class Engine(ABC):
    """A sampler of completions. A subclass nests its `Config` and is named by its class path.

    Attributes:
        exact: what it records is what the policy gives up to rounding; of others the weights in the loss are corrected.
    """

    config: Any
    exact: ClassVar[bool] = True

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

    def accept(self, family: VisionLanguageFamily) -> None:  # noqa: B027 - most take every family
        """Refuse a family that it cannot sample from, before training starts.

        Raises:
            ValueError: says why.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what it holds beside its options; it may be asked again afterwards."""

    @abstractmethod
    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        copies: Sequence[int],
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        version: int,
    ) -> list[Completion]:
        """Complete each prompt so many times, the copies of a prompt one after the other.

        Args:
            policy: as its active adapters stand.
            prompts: of all questions and guidelines.
            copies: rollouts per prompt.
            seeds: one stream per rollout.
            max_new_tokens: T_max.
            temperature: of sampling, above 0.
            version: of the adapter; grows with every update, so that an engine with a copy of the weights knows when
                the copy is old.
        """
