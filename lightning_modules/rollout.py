"""Sampling completions: prompts run once, finished rows leave the batch, every rollout has its own random stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.budget import within_budget
from lightning_modules.functional.scoring import log_distribution
from lightning_modules.packing import RowCache
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt, refuse_beyond

Processor = Callable[[Tensor, Sequence[int], int], Tensor]
"""(B, V) log-probabilities, the B rows they belong to, tokens written so far -> (B, V), normalised again."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        ids: tokens, the end token included where the model stopped by itself.
        logps: their log-probabilities in nats as sampled, every processor applied.
        text: decoded, without the end token.
        truncated: the limit came before the end token.
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    text: str
    truncated: bool


def stream_seed(*keys: object) -> int:
    """A 63-bit seed from the keys alone: (seed, step, question id, row) name a rollout wherever it is sampled."""
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    copies: int | Sequence[int] = 1,
    seeds: Sequence[int] = (),
    rows_at_once: int = 128,
    processor: Processor | None = None,
) -> list[Completion]:
    """Complete each prompt so many times; the copies of a prompt are contiguous in the result.

    Args:
        policy: sampled under its active adapters.
        prompts: P prompts, run once each.
        max_new_tokens: T_max.
        temperature: above 0 samples, 0 takes the most likely token.
        copies: rollouts per prompt, one number for all or one for each.
        seeds: one stream seed per rollout; not needed at temperature 0.
        rows_at_once: bound on the rows decoded together.
        processor: changes the distribution before it is drawn from; what is recorded is what it returns.

    Returns:
        One completion per rollout.

    Raises:
        BadExampleError: a prompt with so many new tokens is over the model's context.
        ValueError: temperature < 0, no tokens asked for, or the seeds do not match the rows.
    """
    if temperature < 0 or max_new_tokens < 1:
        raise ValueError(f"need temperature >= 0 and max_new_tokens >= 1, got {temperature} and {max_new_tokens}")
    counts = [copies] * len(prompts) if isinstance(copies, int) else list(copies)
    if len(counts) != len(prompts):
        raise ValueError(f"got {len(counts)} numbers of copies for {len(prompts)} prompts")
    if temperature > 0 and len(seeds) != sum(counts):
        raise ValueError(f"got {len(seeds)} seeds for {sum(counts)} rollouts of {len(prompts)} prompts")
    refuse_beyond(policy.family.context, prompts, [max_new_tokens] * len(prompts))
    completions: list[Completion] = []
    for part in within_budget(counts, rows_at_once):
        first = len(completions)
        chosen, part_counts = [prompts[i] for i in part], [counts[i] for i in part]
        part_seeds = seeds[first : first + sum(part_counts)]
        completions += _decode(policy, chosen, part_counts, max_new_tokens, temperature, part_seeds, processor, first)
    return completions


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    counts: Sequence[int],
    limit: int,
    temperature: float,
    seeds: Sequence[int],
    processor: Processor | None,
    first: int,
) -> list[Completion]:
    """Decode rows `first`, `first + 1`, … of the whole request; arguments else as of `sample`."""
    family = policy.family
    line = policy.line(prompts, [()] * len(prompts), keep=True)
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    last = torch.tensor(line.packing.row_ends, device=policy.device)[rows]
    hidden, position = policy.hidden_states(line)[last], line.positions[:, last]
    cache = RowCache(line.packing, rows, limit - 1)
    uniforms = _uniforms(seeds, limit).to(policy.device) if temperature > 0 else None

    ends = set(family.end_token_ids)
    slots = list(range(len(rows)))  # the row that each slot of the cache is writing
    ids: list[list[int]] = [[] for _ in rows]
    logps: list[list[float]] = [[] for _ in rows]
    for step in range(limit):
        log_probs = log_distribution(family.logits(hidden), policy.banned, temperature or 1.0)
        if processor is not None:
            log_probs = processor(log_probs, [first + row for row in slots], step)
        token = log_probs.argmax(-1) if uniforms is None else inverse_cdf(log_probs, uniforms[slots, step])
        chosen = log_probs.gather(-1, token[:, None])[:, 0]
        for row, token_id, logp in zip(slots, token.tolist(), chosen.tolist(), strict=True):
            ids[row].append(token_id)
            logps[row].append(logp)
        finished = [slot for slot, row in enumerate(slots) if ids[row][-1] in ends]
        if step + 1 == limit or len(finished) == len(slots):
            break
        if finished:
            order = cache.drop(finished)
            slots, token, position = [slots[slot] for slot in order], token[order], position[:, order]
        cache.next_token()
        position = position + 1
        hidden = family.hidden_states(family.embed_tokens(token), position, cache)
    return [
        Completion(
            tuple(row_ids),
            tuple(row_logps),
            family.tokenizer.decode([i for i in row_ids if i not in ends], skip_special_tokens=False),
            truncated=row_ids[-1] not in ends,
        )
        for row_ids, row_logps in zip(ids, logps, strict=True)
    ]


def _uniforms(seeds: Sequence[int], limit: int) -> Tensor:
    """(B, T_max) float64 in [0, 1): row b is a function of its seed alone."""
    return torch.stack(
        [torch.rand(limit, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )


def inverse_cdf(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw one token per row: the first whose cumulative probability exceeds the row's uniform number.

    Args:
        log_probs: (B, V) nats, normalised; minus infinity where a token is banned.
        uniform: (B,) float64 in [0, 1).

    Returns:
        (B,) int64; never a banned token, rounding at the upper end included.

    Raises:
        RuntimeError: a probability is not a number.
    """
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise RuntimeError(
            "a next-token distribution is not finite: did the last update diverge (learning_rate), or is a picture's "
            "feature not a number?"
        )
    below = torch.nextafter(total, torch.zeros_like(total))  # rounding may bring u · total up to total itself
    threshold = torch.minimum(uniform[:, None] * total, below)
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
