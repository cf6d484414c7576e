"""The built-in engine: exact, reproducible, in this process; prompts run once and finished rows are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typing_extensions import override

from guards.ranges import Ranged, at_least
from lightning_modules.engines.engine import Engine
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion, sample


class Packed(Engine):
    """Samples from the policy itself, so that what was sampled is what is scored."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """How much at a time."""

        rows_at_once: Annotated[int, at_least(1)] = 128
        """Rollouts decoded together, at least 1; changes no rollout beyond rounding."""

    @override
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
        with policy.folded():
            return sample(
                policy,
                prompts,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                copies=copies,
                seeds=seeds,
                rows_at_once=self.config.rows_at_once,
            )
