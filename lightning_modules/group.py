"""A batch of rollouts: P questions, K guidelines, g completions each, with rewards and advantages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import Example
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy, Scores
from lightning_modules.prompts import Prompt
from lightning_modules.rewards.combine import Reward, RewardWeights, reward
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rollout import Completion, sample, stream_seed


@dataclass
class Group:
    """Rollouts in the order question, guideline, copy; row b belongs to question b // (K · g).

    Attributes:
        examples: P questions.
        guidelines: K names.
        copies: g.
        prompts: P · K prompts.
        completions: P · K · g completions.
        rewards: P · K · g rewards by component.
        advantages: (P, K, g) float.
        old_logps: per row, (T_b,) nats before the first update on these rollouts.
    """

    examples: tuple[Example, ...]
    guidelines: tuple[str, ...]
    copies: int
    prompts: list[Prompt]
    completions: list[Completion]
    rewards: list[Reward]
    advantages: Tensor
    old_logps: dict[int, Tensor]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, K, g)."""
        return len(self.examples), len(self.guidelines), self.copies

    @property
    def totals(self) -> Tensor:
        """(P, K, g) float64 total rewards."""
        return self.component("total")

    def component(self, name: str) -> Tensor:
        """(P, K, g) float64 of one reward component; NaN where it does not apply."""
        values = [getattr(item, name) for item in self.rewards]
        return torch.tensor(
            [float("nan") if value is None else float(value) for value in values], dtype=torch.float64
        ).reshape(self.shape)

    @property
    def lengths(self) -> Tensor:
        """(P · K · g,) completion lengths in tokens."""
        return torch.tensor([len(completion.ids) for completion in self.completions])

    def micro_batches(self, tokens: int, *, skip_zero_advantage: bool) -> Iterator[list[int]]:
        """Cut the rows into pieces of at most `tokens` packed tokens, in order; a longer row stands alone.

        A question's rows stay together where they fit, so that its shared prefix is computed once.

        Args:
            tokens: bound on a piece's tokens, shared prefixes counted once.
            skip_zero_advantage: leave rows out whose advantage is exactly zero: they contribute no gradient to the
                policy term, so this is exact where there is no KL term.
        """
        advantages = self.advantages.flatten().tolist()
        per_question = len(self.guidelines) * self.copies
        piece: list[int] = []
        size = 0
        for start in range(0, len(advantages), per_question):
            question = range(start, start + per_question)
            rows = [row for row in question if not (skip_zero_advantage and advantages[row] == 0)]
            whole = self.packed_tokens(rows)
            if piece and size + whole > tokens:
                yield piece
                piece, size = [], 0
            if size + whole <= tokens:
                piece, size = piece + rows, size + whole
                continue
            for row in rows:  # a question that is too long by itself; piece is empty here
                if piece and self.packed_tokens([*piece, row]) > tokens:
                    yield piece
                    piece = []
                piece.append(row)
            size = self.packed_tokens(piece)
        if piece:
            yield piece

    def packed_tokens(self, rows: Sequence[int]) -> int:
        """Tokens that the language model runs on for these rows, shared prefixes counted once."""
        prompts = [self.prompts[row // self.copies] for row in rows]
        shared = sum({prompt.prefix: prompt.shared for prompt in prompts}.values())
        rests = (len(prompt.ids) - prompt.shared for prompt in prompts)
        return shared + sum(rests) + sum(len(self.completions[row].ids) for row in rows)

    def rows(self, rows: Sequence[int]) -> tuple[list[Prompt], list[tuple[int, ...]]]:
        """Prompts and completion ids of some rows."""
        return [self.prompts[row // self.copies] for row in rows], [self.completions[row].ids for row in rows]

    def advantages_of(self, rows: Sequence[int]) -> Tensor:
        """(B,) advantages of some rows."""
        return self.advantages.flatten()[list(rows)]

    def remember_old_logps(self, rows: Sequence[int], logps: Tensor) -> None:
        """Keep (B, T) log-probabilities of some rows, without their padding."""
        for row, values in zip(rows, logps, strict=True):
            self.old_logps[row] = values[: len(self.completions[row].ids)]

    def old_logps_of(self, rows: Sequence[int]) -> Tensor:
        """(B, T) log-probabilities of some rows, zero outside their length."""
        return torch.nn.utils.rnn.pad_sequence([self.old_logps[row] for row in rows], batch_first=True)

    def drift(self, rows: Sequence[int], scores: Scores) -> dict[str, float]:
        """How far the trainer's log-probabilities are from the sampler's, and the distribution's entropy."""
        sampled = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(self.completions[row].logps) for row in rows], batch_first=True
        ).to(scores.logps)
        distance = ((scores.logps.detach() - sampled).abs() * scores.completion_mask).max()
        entropy = (scores.entropy * scores.completion_mask).sum() / int(self.lengths.sum())
        return {"train/ratio/sampler_log_max": float(distance), "train/entropy_nats": float(entropy)}


def roll_out(
    policy: Policy,
    examples: Sequence[Example],
    guidelines: Mapping[str, Guideline],
    weights: RewardWeights,
    *,
    copies: int,
    temperature: float,
    max_new_tokens: int,
    stream: tuple[object, ...],
    clock: PhaseClock,
) -> Group:
    """Answer every question under every guideline and reward the answers; advantages are still zero.

    Args:
        policy: sampled under its active adapters.
        examples: P questions.
        guidelines: K guidelines by name.
        weights: of the reward's components.
        copies: g, rollouts per guideline.
        temperature: of sampling.
        max_new_tokens: T_max.
        stream: names the random streams together with question id, guideline and copy.
        clock: times rollout and reward, and counts generated tokens.
    """
    instructions = [item.instruction for item in guidelines.values()]
    prompts = [prompt for example in examples for prompt in policy.prompts(example, instructions)]
    seeds = [
        stream_seed(*stream, example.question_id, name, copy)
        for example in examples
        for name in guidelines
        for copy in range(copies)
    ]
    with clock.phase("rollout"), policy.folded():
        completions = sample(
            policy, prompts, max_new_tokens=max_new_tokens, temperature=temperature, copies=copies, seeds=seeds
        )
    clock.count("rollout_tokens", sum(len(completion.ids) for completion in completions))
    per_question = len(guidelines) * copies
    names = [name for name in guidelines for _ in range(copies)] * len(examples)
    with clock.phase("reward"):
        rewards = [
            reward(completion.text, examples[row // per_question], guidelines[name], weights)
            for row, (completion, name) in enumerate(zip(completions, names, strict=True))
        ]
    shape = (len(examples), len(guidelines), copies)
    return Group(tuple(examples), tuple(guidelines), copies, prompts, completions, rewards, torch.zeros(shape), {})
