"""Whether a teacher is worth listening to, prompt by prompt: its own answers are looked at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datamodules.batch import SPECIALTY
from lightning_modules.functional.distillation import taught
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rollout import sample, stream_seed
from lightning_modules.rollouts import Rollouts


@dataclass(frozen=True)
class TeacherGate:
    """Asks each teacher each question once in a run, and remembers how often it was right.

    Attributes:
        policy: on which the teachers are attached.
        teachers: specialty -> the adapters that are its expert together.
        rewards: tell whether an answer is right.
        guideline: the neutral one.
        kind: see `functional.distillation.taught`.
        samples: answers of a teacher to a question.
        temperature: of these; 0 takes the most likely tokens.
        max_new_tokens: limit of an answer.
        seed: of the run.
        clock: times it.
        rates: question id -> share of right answers, of the questions met so far.
    """

    policy: Policy
    teachers: Mapping[str, tuple[str, ...]]
    rewards: Rewards
    guideline: Guideline
    kind: str
    samples: int
    temperature: float
    max_new_tokens: int
    seed: int
    clock: PhaseClock
    rates: dict[str, float] = field(default_factory=dict)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(P,) bool: which questions of a step are taught."""
        student = rollouts.right.mean(dim=1)
        if self.kind == "none":
            return taught(self.kind, student, student)
        for specialty, teacher in self.teachers.items():
            new = [
                place
                for place, example in enumerate(rollouts.examples)
                if example.tags[SPECIALTY] == specialty and example.question_id not in self.rates
            ]
            if new:
                with self.clock.phase("teacher"), self.policy.acting(teacher), self.policy.folded():
                    self.ask(rollouts, new)
        rates = torch.tensor([self.rates[example.question_id] for example in rollouts.examples], dtype=torch.float64)
        return taught(self.kind, rates, student)

    def ask(self, rollouts: Rollouts, places: Sequence[int]) -> None:
        """Put questions to the teacher that acts now."""
        examples = [rollouts.examples[place] for place in places]
        answers = sample(
            self.policy,
            [rollouts.prompts[place] for place in places],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            copies=self.samples,
            seeds=[
                stream_seed("gate", self.seed, e.question_id, copy) for e in examples for copy in range(self.samples)
            ],
        )
        for number, example in enumerate(examples):
            own = answers[number * self.samples : (number + 1) * self.samples]
            right = [
                self.rewards(a.text, example, self.guideline, n_tokens=len(a.ids), truncated=a.truncated).right
                for a in own
            ]
            self.rates[example.question_id] = sum(right) / self.samples
