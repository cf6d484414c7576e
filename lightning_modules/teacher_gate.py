"""Whether a teacher is worth listening to, prompt by prompt: its own answers are looked at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datamodules.batch import SPECIALTY, Example
from lightning_modules.functional.teacher_gate import taught
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rollout import sample, stream_seed
from lightning_modules.rollouts import Rollouts


@dataclass(frozen=True)
class TeacherGate:
    """Asks each teacher each question once in a run and device, and remembers how often it was right.

    Attributes:
        policy: on which the teachers are attached.
        teachers: specialty -> the adapters that are its expert together.
        rewards: tell whether an answer is right.
        guideline: the neutral one.
        kind: see `functional.teacher_gate.taught`.
        samples: answers of a teacher to a question.
        temperature: of these; 0 takes the most likely tokens.
        max_new_tokens: limit of an answer.
        rows_at_once: bound on the answers decoded together.
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
    rows_at_once: int
    seed: int
    clock: PhaseClock
    rates: dict[str, float] = field(default_factory=dict)

    def __call__(self, rollouts: Rollouts, ahead: Sequence[Example] = ()) -> Tensor:
        """Tell which questions of a step are taught.

        Args:
            rollouts: the student's answers to them.
            ahead: questions that come later; a teacher that has to be asked answers its own among them too.

        Returns:
            (P,) bool.
        """
        student = rollouts.right.mean(dim=1)
        if self.kind == "none":
            return taught(self.kind, student, student)
        for specialty, teacher in self.teachers.items():
            if any(self.is_new(example, specialty) for example in rollouts.examples):
                later = (*rollouts.examples, *ahead)
                new = {example.question_id: example for example in later if self.is_new(example, specialty)}
                with self.clock.phase("teacher"), self.policy.acting(teacher), self.policy.folded():
                    self.ask(list(new.values()))
        rates = torch.tensor([self.rates[example.question_id] for example in rollouts.examples], dtype=torch.float64)
        return taught(self.kind, rates, student)

    def is_new(self, example: Example, specialty: str) -> bool:
        """Whether a specialty's teacher would have to be asked."""
        return example.tags[SPECIALTY] == specialty and example.question_id not in self.rates

    def ask(self, examples: Sequence[Example]) -> None:
        """Put questions to the teacher that acts now."""
        answers = sample(
            self.policy,
            [self.policy.prompt(example, self.guideline.instruction) for example in examples],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            copies=self.samples,
            rows_at_once=self.rows_at_once,
            seeds=[stream_seed("gate", self.seed, e.question_id, n) for e in examples for n in range(self.samples)],
        )
        self.clock.count("rollouts", len(answers))
        for number, example in enumerate(examples):
            own = answers[number * self.samples : (number + 1) * self.samples]
            right = [
                self.rewards(a.text, example, self.guideline, n_tokens=len(a.ids), truncated=a.truncated).right
                for a in own
            ]
            self.rates[example.question_id] = sum(right) / self.samples
