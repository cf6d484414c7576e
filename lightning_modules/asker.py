"""Rolling out: every question is answered under every guideline, and every answer is rewarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from lightning_modules.choices.choice import Choice
from lightning_modules.engines.engine import Engine
from lightning_modules.layout import Layout
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.question_states import question_states
from lightning_modules.rewards.combine import Rewards, judged
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rollout import stream_seed
from lightning_modules.rollouts import Rollouts


@dataclass(frozen=True)
class Asker:
    """What does not change from step to step.

    Attributes:
        policy: sampled under its active adapters.
        engine: writes the completions.
        rewards: of a completion.
        guidelines: by name, those of `layout` in its order.
        layout: rollouts per guideline.
        max_new_tokens: T_max.
        temperature: of sampling.
        choice: which of them a question's guided rollouts are under; None leaves each of the layout to itself.
        neutral_too: every question is also written without an instruction, to be scored under.
        clock: times rollout and reward, and counts generated tokens.
    """

    policy: Policy
    engine: Engine
    rewards: Rewards
    guidelines: Mapping[str, Guideline]
    layout: Layout
    choice: Choice | None
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
        carried, states = self.carried(examples, places, stream, pictures)
        instructions = [[self.guidelines[name].instruction for name in own] for own in carried]
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
        found = Rollouts(
            tuple(examples), tuple(places), self.layout, carried, prompts, plain, completions, [], prior, states
        )
        with self.clock.phase("reward"):
            found.rewards = self.rewards.together(
                [
                    judged(
                        completion.text,
                        examples[row // self.layout.size],
                        self.guidelines[found.guideline(row)],
                        n_tokens=len(completion.ids),
                        truncated=completion.truncated,
                    )
                    for row, completion in enumerate(completions)
                ]
            )
        return found

    def carried(
        self, examples: Sequence[Example], places: Sequence[int], stream: tuple[object, ...], pictures: Sequence[Any]
    ) -> tuple[list[tuple[str, ...]], list[Tensor]]:
        """What each question is asked under in place of the layout's guidelines; arguments as of `ask`.

        Returns:
            P times K names, and P states (H,) of the questions, or none where nobody chooses.
        """
        named, states = self.layout.guidelines, torch.zeros(len(examples), 0)
        if self.choice is None:
            return [named] * len(examples), []
        with self.clock.phase("rollout"):
            if self.choice.reads_questions:
                with self.policy.acting(()):  # the bare base, which stays what it is
                    states = question_states(self.policy, examples, pictures)
            guided = [name for name in named if name != NEUTRAL]
            seeds = [stream_seed(*stream, place, "choice") for place in places]
            chosen = self.choice(examples, states, guided, seeds)
        neutral = named[: len(named) - len(guided)]  # it comes first, where it is there
        return [(*neutral, *own) for own in chosen], list(states)
