"""Which magnitude the largest share of an expert's entries reaches: exact, over a whole model, one block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from merge.methods.interface import Experts, expert_sample, expert_tiles


def kept_threshold(blocks: Callable[[], Iterable[Tensor]], density: float, sample: Tensor | None = None) -> float:
    """The magnitude that the largest `density` of all entries reach, exactly, without holding them together.

    Non-negative fp32 numbers are ordered as their bit patterns. One pass counts the upper 16 bits and finds the bin
    that holds the k-th largest; a second pass counts the lower 16 bits inside that bin.

    Args:
        blocks: called twice; each time the same fp32 tensors, of any shapes.
        density: fraction to keep, in [0, 1].
        sample: (S,) entries that stand for all; where their magnitudes tell near enough, one pass is enough. The
            answer is the same whatever is given.

    Returns:
        The k-th largest magnitude, k = floor(density * entries); infinity for k = 0, and 0 for density 1.

    Source: TIES-Merging, arXiv:2306.01708, section 3 (the released code trims over all of an expert's entries).
    Choice: k as mergekit and PEFT count it; the released code keeps one entry more. Entries equal to the threshold are
        all kept, for nothing tells them apart.
    """
    if density == 1:
        return 0.0
    if sample is not None and (found := threshold_near(blocks, density, sample)) is not None:
        return found
    upper = torch.zeros(2**15, dtype=torch.int64)
    for block in blocks():
        upper += torch.bincount(magnitude_bits(block) >> 16, minlength=2**15)
    k = int(density * upper.sum().item())
    if k == 0:
        return math.inf
    bin_, k_in_bin = nth_from_top(upper, k)
    lower = torch.zeros(2**16, dtype=torch.int64)
    for block in blocks():
        bits = magnitude_bits(block)
        lower += torch.bincount(bits[bits >> 16 == bin_] & 0xFFFF, minlength=2**16)
    low, _ = nth_from_top(lower, k_in_bin)
    return as_magnitude((bin_ << 16) | low)


def threshold_near(blocks: Callable[[], Iterable[Tensor]], density: float, sample: Tensor) -> float | None:
    """`kept_threshold` in one pass, where a sample tells within a twentieth of the rank where it lies; else None."""
    guess = magnitude_bits(sample).sort(descending=True).values
    rank, slack = density * len(guess), 0.05 * density * len(guess) + 8
    if not (slack <= rank and rank + slack < len(guess)):
        return None
    low, high = int(guess[int(rank + slack)]), int(guess[int(rank - slack)])
    if high - low >= 2**22:  # counted by exact value, which takes too much memory
        return None
    counts = torch.zeros(high - low + 1, dtype=torch.int64)
    entries = above = 0
    for block in blocks():
        bits = magnitude_bits(block)
        ordered = bits.numpy()  # whose comparisons and selections take a third of torch's time
        inside = bits[torch.from_numpy(((ordered >= low) & (ordered <= high)).nonzero()[0])].long() - low
        counts.index_add_(0, inside, torch.ones_like(inside))
        entries, above = entries + len(ordered), above + int((ordered > high).sum())
    k = int(density * entries)
    if not above < k <= above + int(counts.sum()):
        return None
    return as_magnitude(low + nth_from_top(counts, k - above)[0])


def magnitude_bits(block: Tensor) -> Tensor:
    """The bit patterns of |x|, one after the other, int32, ordered as |x| is."""
    return block.float().abs().flatten().view(torch.int32)


def as_magnitude(bits: int) -> float:
    """The non-negative fp32 number of a bit pattern."""
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()


def nth_from_top(counts: Tensor, n: int) -> tuple[int, int]:
    """The bin that holds the n-th largest item (n from 1), and its place counted from the top of that bin."""
    from_top = counts.flip(0).cumsum(0)
    position = int((from_top < n).sum())
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, n - above


def thresholds_over(experts: Experts, modules: list[str], density: float) -> Tensor:
    """(K,) magnitudes that the largest `density` of each expert's entries in these modules reach."""
    return torch.tensor(
        [
            kept_threshold(partial(expert_tiles, vector, modules), density, expert_sample(vector, modules))
            for vector in experts.vectors.values()
        ]
    )
