"""Answers in, numbers out: one reward per dimension, read where an answer ends.

Answers to one question share its picture and its words: these are computed once, and the answers are branches of one
packed line, so that a reward does not depend on the answers beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from datamodules.batch import Example
from lightning_modules.budget import within_budget
from lightning_modules.policy import Images, Policy
from lightning_modules.prompts import Prompt, refuse_beyond

Asked = tuple[Example, Sequence[str]]
"""A question, and the answers to it that are graded."""
TOKENS_AT_ONCE = 16384
"""Bound on tokens per forward pass where nothing else is said."""


class RewardHead(nn.Module):
    """A linear map from an answer's last state to its rewards, in fp32; it begins at zero: no answer is better."""

    def __init__(self, hidden_size: int, dimensions: Sequence[str]) -> None:
        """Make it.

        Args:
            hidden_size: H of the language model.
            dimensions: what answers are graded on, in the order of the columns.
        """
        super().__init__()
        self.dimensions = tuple(dimensions)
        self.weight = nn.Parameter(torch.zeros(len(self.dimensions), hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(self.dimensions)))

    @override
    def forward(self, hidden: Tensor) -> Tensor:
        """(B, H) -> (B, D) log-odds."""
        return nn.functional.linear(hidden.float(), self.weight, self.bias)


def written_answers(
    policy: Policy, example: Example, answers: Sequence[str], images: Images | None = None
) -> tuple[Prompt, list[list[int]]]:
    """A question's neutral prompt and the tokens of its answers, each with the end of its turn.

    Raises:
        BadExampleError: a picture cannot be read, or an answer is too long for the model.
    """
    prompt = policy.prompt(example, "", images)
    tails = [policy.completion_ids(text) for text in answers]
    refuse_beyond(policy.family.context, [prompt] * len(tails), list(map(len, tails)))
    return prompt, tails


def rewards(policy: Policy, head: RewardHead, prompts: Sequence[Prompt], tails: Sequence[Sequence[int]]) -> Tensor:
    """(B, D) rewards of answers under the active adapters, with gradient.

    Args:
        policy: reads.
        head: maps states to rewards.
        prompts: B prompts; those of one question are computed once.
        tails: B answers' tokens, none empty.
    """
    line = policy.line(prompts, tails)
    ends = torch.tensor(line.packing.row_ends, device=policy.device)
    return head(policy.hidden_states(line).index_select(0, ends))


def line_tokens(prompt: Prompt, tails: Sequence[Sequence[int]]) -> int:
    """Tokens that a question with its answers takes in a packed line, at most."""
    return len(prompt.ids) + sum(map(len, tails)) + len(tails)


@torch.no_grad()
def graded_answers(
    policy: Policy, head: RewardHead, asked: Sequence[Asked], tokens_at_once: int = TOKENS_AT_ONCE
) -> list[Tensor]:
    """For each question the (answers, D) log-odds of its answers, on the CPU, under the adapters that act.

    Raises:
        BadExampleError: a picture cannot be read, or an answer is too long for the model.
    """
    written = [written_answers(policy, example, answers) for example, answers in asked]
    found: list[Tensor] = []
    for rows in within_budget([line_tokens(*one) for one in written], tokens_at_once):
        prompts = [written[row][0] for row in rows for _ in written[row][1]]
        values = rewards(policy, head, prompts, [tail for row in rows for tail in written[row][1]]).cpu()
        found += values.split([len(written[row][1]) for row in rows])
    return found
