"""Imitation of written completions: the loss of the stages that do not sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import Batch, Example
from datamodules.prompts import NEUTRAL
from lightning_modules.budget import within_budget
from lightning_modules.functional.reductions import Denominators, token_mean
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt


@dataclass
class Lesson:
    """Rows to imitate, tokenised.

    Attributes:
        policy: scored under its active adapters.
        prompts: R prompts.
        completions: R token lists.
        clock: times the forward passes and counts their tokens.
        loss: sum over tokens of what was scored so far, in nats, times the share of a token.
        token_probability: mean probability of a token, of what was scored so far.
    """

    policy: Policy
    prompts: list[Prompt]
    completions: list[list[int]]
    clock: PhaseClock
    loss: float = 0.0
    token_probability: float = 0.0

    @classmethod
    def of(cls, policy: Policy, batch: Batch, instructions: Mapping[str, str], clock: PhaseClock) -> Lesson:
        """Tokenise a batch.

        Args:
            policy: whose family tokenises.
            batch: rows with guidelines and completions, none or more.
            instructions: guideline name -> instruction.
            clock: times it.
        """
        with clock.phase("forward"):
            rows = zip(batch.examples, batch.guidelines, strict=True)
            prompts = [
                policy.prompt(example, instructions[guideline], batch.pictures_of(row))
                for row, (example, guideline) in enumerate(rows)
            ]
            return cls(policy, prompts, [policy.completion_ids(text) for text in batch.completions], clock)

    @property
    def tokens(self) -> int:
        """Completion tokens."""
        return sum(map(len, self.completions))

    def pieces(self, tokens: int, micro_batch_tokens: int) -> Iterator[Tensor]:
        """Mean negative log-probability per token, in pieces that add up; `loss` and `token_probability` with them.

        Args:
            tokens: completion tokens of the whole step, over all devices.
            micro_batch_tokens: bound on tokens per forward pass.

        Yields:
            () nats.
        """
        sizes = Denominators(tokens, len(self.completions), max(map(len, self.completions), default=0))
        lengths = [len(prompt.ids) + len(ids) for prompt, ids in zip(self.prompts, self.completions, strict=True)]
        for rows in within_budget(lengths, micro_batch_tokens):
            with self.clock.phase("forward"):
                scores = self.policy.score([self.prompts[row] for row in rows], [self.completions[row] for row in rows])
                self.clock.count("train_tokens", scores.tokens)
                probabilities = scores.logps.detach().exp()
                self.token_probability += float(token_mean(probabilities, scores.completion_mask, sizes))
                loss = token_mean(-scores.logps, scores.completion_mask, sizes)
                self.loss += float(loss.detach())
                del scores, probabilities
            yield loss


@torch.no_grad()
def validation_loss(
    policy: Policy,
    batch: Batch,
    guidelines: Sequence[str] | None,
    answer_with: str,
    micro_batch_tokens: int,
    plainly: Callable[[Example, str], bool] | None = None,
) -> tuple[float, int]:
    """Mean negative log-probability of worked traces under the neutral prompt, which is the one used at test time.

    Args:
        policy: as it acts.
        batch: questions; those without a trace count for nothing.
        guidelines: whose traces are taken; None takes all.
        answer_with: what a trace puts into its answer block.
        micro_batch_tokens: bound on tokens per forward pass.
        plainly: whether an example's trace of a guideline is taught under the neutral prompt, or else counts for
            nothing; None takes each.

    Returns:
        Nats per completion token, and the tokens.
    """
    rows = [
        (number, example.trace(guideline, answer_with))
        for number, example in enumerate(batch.examples)
        for guideline in example.reasoning
        if guidelines is None or guideline in guidelines
        if plainly is None or plainly(example, guideline)
    ]
    traces = Batch(
        tuple(batch.examples[number] for number, _ in rows),
        (NEUTRAL,) * len(rows),
        tuple(text for _, text in rows),
        tuple(batch.pictures[number] for number, _ in rows) if batch.pictures else (),
    )
    lesson = Lesson.of(policy, traces, {NEUTRAL: ""}, PhaseClock())
    for _ in lesson.pieces(lesson.tokens, micro_batch_tokens):
        pass
    return lesson.loss, lesson.tokens
