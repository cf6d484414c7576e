"""Whether a merged agent speaks at all: finite logits, words not too far from the base's, no endless repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

REPLIES = 8
"""Per specialty, on which logits are compared."""


@dataclass(frozen=True)
class Smoke:
    """How a merged agent speaks on one specialty's questions, and how the specialty's expert does."""

    kl: float
    """KL(merged || base), nats per token; NaN where a logit is not finite."""
    expert_kl: float
    """KL(expert || base) at the same tokens."""
    loops: Sequence[bool]
    """Which of the merged agent's replies end in a loop; see `repeats`."""
    expert_loops: Sequence[bool]
    """Which of the expert's do; the same questions."""


def kl_to_base(logits: Tensor, base_logits: Tensor, mask: Tensor) -> Tensor:
    """How far a model's next words are from the base's.

        mean over tokens of sum_v p(v) (log p(v) - log q(v)), p of the model, q of the base

    Args:
        logits: (B, T, V) of the model.
        base_logits: (B, T, V) of the base, after the same tokens.
        mask: (B, T) bool, True where a token counts; at least one in each row.

    Returns:
        (B,) fp32, nats per token of each row; not finite where a logit that counts is not.

    Choice: the plain distributions, over the whole vocabulary: tokens that sampling bans show damage too.
    """
    log_p, log_q = (torch.log_softmax(each[mask].float(), dim=-1) for each in (logits, base_logits))
    per_token = (log_p.exp() * (log_p - log_q)).sum(-1)
    summed = per_token.new_zeros(mask.shape).masked_scatter(mask, per_token).sum(-1)
    return summed / mask.sum(-1)


def repeats(tokens: Sequence[int], *, times: int = 3, shortest: int = 12) -> bool:
    """Whether a reply was cut off in a loop: its end is one n-gram over and over.

    Args:
        tokens: of the reply. One that ended by itself holds the end token last and nowhere else, so it is no loop.
        times: how often the n-gram must stand there in a row, at least 2; n is whatever fits.
        shortest: tokens that the loop must take, so that "1.000" and a row of dots are none.

    Choice: exact repetition of token ids. Greedy text that repeats itself three times does so until it is cut off.
    """
    for n in range(1, len(tokens) // times + 1):
        end = tokens[-max(times * n, shortest) :]
        if len(end) >= shortest and end[n:] == end[:-n]:
            return True
    return False
