"""What writes the rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion


class Engine(ABC):
    """A sampler of completions. A subclass nests its `Config` and is named by its class path."""

    config: Any

    def __init__(self, config: Any = None) -> None:
        """Keep the options; None means the defaults."""
        self.config = config if config is not None else self.Config()

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
