"""Sampling completions: prompts run once, finished rows leave the batch, every rollout has its own random stream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lightning_modules.budget import within_budget
from lightning_modules.decoding import WORTH, Decoding, Follower, Processor, Recorded, worth_recording
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt, refuse_beyond
from lightning_modules.row_cache import FixedRowCache, RowCache

LOOK_EVERY = 16
"""Tokens between two looks at a card: at most so many are written in vain per row."""


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
    follow: Follower | None = None,
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
        follow: is told of tokens as they come: on a card some at a time, see `LOOK_EVERY`. What it raises ends it all.

    Returns:
        One completion per rollout.

    Raises:
        BadExampleError: a prompt with so many new tokens is over the model's context.
        RuntimeError: a probability is not a number.
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
        told = partial(_of_all, processor, first) if processor is not None else None
        heard = partial(_told_of, follow, first) if follow is not None else None
        completions += _decode(policy, chosen, part_counts, max_new_tokens, temperature, part_seeds, told, heard)
    return completions


def _of_all(processor: Processor, first: int, log_probs: Tensor, rows: Sequence[int], written: int) -> Tensor:
    """What a processor makes of rows that are counted from `first`."""
    return processor(log_probs, [first + row for row in rows], written)


def _told_of(follow: Follower, first: int, row: int, ids: Sequence[int]) -> None:
    """Tell of a row that is counted from `first`."""
    follow(first + row, ids)


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    counts: Sequence[int],
    limit: int,
    temperature: float,
    seeds: Sequence[int],
    processor: Processor | None,
    follow: Follower | None,
) -> list[Completion]:
    """Decode all rows together; arguments as of `sample`."""
    family = policy.family
    line = policy.line(prompts, [()] * len(prompts), keep=True)
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    last = torch.tensor(line.packing.row_ends, device=policy.device)[rows]
    hidden, position = policy.hidden_states(line)[last], line.positions[:, last]
    recorded = processor is None and not policy.in_parts and worth_recording(policy.device, limit)
    cache = (FixedRowCache if recorded else RowCache)(line.packing, rows, limit - 1)
    uniforms = _uniforms(seeds, limit).to(policy.device) if temperature > 0 else None

    decoding = Decoding(policy, cache, position, limit, temperature, uniforms, processor, follow)
    decoding.draw(hidden, 0)
    advance = Recorded(decoding.advance) if recorded else decoding.advance
    look_every = look_interval(policy.device)
    for written in range(1, limit):
        if written % look_every == 0:
            finished = decoding.look(written)
            if len(finished) == cache.rows:
                break
            # a recording is of so many rows: it is worth another where that saves half of them for long enough
            enough = 2 * len(finished) >= cache.rows and limit - written >= WORTH if recorded else bool(finished)
            if enough:
                decoding.drop(finished)
                advance = Recorded(decoding.advance) if recorded else decoding.advance
        advance(written)
    else:
        decoding.look(limit)
    return [
        Completion(
            tuple(ids),
            tuple(logps),
            family.tokenizer.decode([i for i in ids if i not in decoding.ends], skip_special_tokens=False),
            truncated=ids[-1] not in decoding.ends,
        )
        for ids, logps in zip(decoding.ids, decoding.logps, strict=True)
    ]


def look_interval(device: torch.device) -> int:
    """Tokens between two looks: a processor is never kept waiting by one, a card always."""
    return 1 if device.type == "cpu" else LOOK_EVERY


def _uniforms(seeds: Sequence[int], limit: int) -> Tensor:
    """(B, T_max) float64 in [0, 1): row b is a function of its seed alone."""
    return torch.stack(
        [torch.rand(limit, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )
