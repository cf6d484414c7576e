"""Rolling out: every question is answered under every guideline, and every answer is rewarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from lightning_modules.engines.engine import Engine
from lightning_modules.layout import ORACLE, Layout
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.rewards.combine import Rewards, judged
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rollouts import Rollouts


@dataclass(frozen=True)
class Asker:
    """What does not change from step to step.

    Attributes:
        policy: sampled under its active adapters.
        engine: writes the completions.
        rewards: of a completion.
        guidelines: by name, those of `layout` in its order, or those that a question's own is among.
        layout: rollouts per guideline.
        max_new_tokens: T_max.
        temperature: of sampling.
        oracle_tag: tag of a question that names its own guideline, where the layout has one of that kind.
        neutral_too: every question is also written without an instruction, to be scored under.
        clock: times rollout and reward, and counts generated tokens.
    """

    policy: Policy
    engine: Engine
    rewards: Rewards
    guidelines: Mapping[str, Guideline]
    layout: Layout
    oracle_tag: str
    max_new_tokens: int
    temperature: float
    neutral_too: bool
    clock: PhaseClock

    def ask(
        self,
        examples: Sequence[Example],
        places: Sequence[int],
        stream: tuple[object, ...],
        *,
        pictures: Sequence[Any] = (),
        version: int = 0,
    ) -> Rollouts:
        """Answer every question under every guideline; advantages are yet to be made.

        Args:
            examples: P questions.
            places: of each within the whole step, over all devices.
            stream: names the random streams, together with place, guideline and copy: no row of a run has the stream
                of another, even where a question comes again.
            pictures: of each question, ready; empty where the policy reads them.
            version: of the adapter, for engines that hold a copy.
        """
        instructions = [[self.under(name, e).instruction for name in self.layout.guidelines] for e in examples]
        if self.neutral_too and NEUTRAL not in self.layout.guidelines:
            instructions = [[*own, ""] for own in instructions]
        ready = pictures or [None] * len(examples)
        asked = zip(examples, instructions, ready, strict=True)
        written = [self.policy.prompts(example, texts, own) for example, texts, own in asked]
        prompts = [prompt for own in written for prompt in own[: len(self.layout.guidelines)]]
        plain = [own[texts.index("")] for own, texts in zip(written, instructions, strict=True) if self.neutral_too]
        with self.clock.phase("rollout"):
            completions = self.engine.generate(
                self.policy,
                prompts,
                list(self.layout.counts.values()) * len(examples),
                [seed for place in places for seed in self.layout.seeds(*stream, place)],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                version=version,
            )
        self.clock.count("rollouts", len(completions))
        self.clock.count("rollout_tokens", sum(len(completion.ids) for completion in completions))
        prior = {name: item.prior for name, item in self.guidelines.items()}
        found = Rollouts(tuple(examples), tuple(places), self.layout, prompts, plain, completions, [], prior)
        with self.clock.phase("reward"):
            found.rewards = self.rewards.together(
                [
                    judged(
                        completion.text,
                        examples[row // self.layout.size],
                        self.under(found.guideline(row), examples[row // self.layout.size]),
                        n_tokens=len(completion.ids),
                        truncated=completion.truncated,
                    )
                    for row, completion in enumerate(completions)
                ]
            )
        return found

    def under(self, name: str, example: Example) -> Guideline:
        """The guideline of a place of the layout: for one question its own, where the layout leaves that to it."""
        return self.guidelines[example.tags[self.oracle_tag] if self.oracle_tag and name == ORACLE else name]
