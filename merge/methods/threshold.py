"""Which magnitude the largest share of an expert's entries reaches: exact, over a whole model, one block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
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
    if sample is not None and on_processor(sample) and (found := threshold_near(blocks, density, sample)) is not None:
        return found
    upper = np.zeros(2**15, dtype=np.int64)
    for block in blocks():
        upper += binned(countable(block) >> 16, 2**15)
    k = int(density * int(upper.sum()))
    if k == 0:
        return math.inf
    bin_, k_in_bin = nth_from_top(upper, k)
    lower = np.zeros(2**16, dtype=np.int64)
    for block in blocks():
        bits = countable(block)
        lower += binned(bits[bits >> 16 == bin_] & 0xFFFF, 2**16)
    low, _ = nth_from_top(lower, k_in_bin)
    return as_magnitude((bin_ << 16) | low)


def threshold_near(blocks: Callable[[], Iterable[Tensor]], density: float, sample: Tensor) -> float | None:
    """`kept_threshold` in one pass, where a sample tells near enough where it lies; else None."""
    bracket = Bracket.around(sample, density)
    if bracket is None or bracket.high - bracket.low >= 2**22:  # counted by exact value, which takes too much memory
        return None
    counts = np.zeros(bracket.high - bracket.low + 1, dtype=np.int64)
    waiting: list[np.ndarray] = []
    held = 0
    for block in blocks():
        waiting.append(bracket.inside(magnitude_bits(block).numpy()))
        held += len(waiting[-1])
        if held > len(counts):
            counts += counted(waiting, len(counts))
            waiting, held = [], 0
    counts += counted(waiting, len(counts))
    k = int(density * bracket.entries) - bracket.above
    return as_magnitude(bracket.low + nth_from_top(counts, k)[0]) if 0 < k <= counts.sum() else None


def counted(values: Sequence[np.ndarray], bins: int) -> np.ndarray:
    """How often each number below `bins` occurs."""
    return np.bincount(np.concatenate(values), minlength=bins) if values else np.zeros(bins, dtype=np.int64)


@dataclass
class Bracket:
    """Two magnitudes between which a threshold is thought to lie, and what was seen above them."""

    low: int
    """Bit pattern."""
    high: int
    """Bit pattern."""
    entries: int = 0
    above: int = 0

    @classmethod
    def around(cls, sample: Tensor, density: float) -> Bracket | None:
        """A twentieth of the rank to either side of where a sample, (S,), has it; None where it is too small for that.

        Args:
            sample: (S,) entries that stand for all.
            density: fraction to keep, in [0, 1].
        """
        guess = magnitude_bits(sample).numpy()
        rank, slack = density * len(guess), 0.05 * density * len(guess) + 8
        if not (slack + 1 <= rank and rank + slack < len(guess)):
            return None
        return cls(nth_largest(guess, int(rank + slack)), nth_largest(guess, int(rank - slack)))

    def inside(self, bits: np.ndarray) -> np.ndarray:
        """Count some magnitudes' bit patterns, (n,) int32; those in the bracket, less its lower end, uint32.

        Choice: in numpy, whose comparisons, counts and selections take a third of torch's time.
        """
        self.entries += len(bits)
        self.above += int(np.count_nonzero(bits > self.high))
        from_low = (bits - np.int32(self.low)).view(np.uint32)  # those below become the largest
        return from_low[(from_low <= np.uint32(self.high - self.low)).nonzero()[0]]


def magnitude_bits(block: Tensor) -> Tensor:
    """The bit patterns of |x|, one after the other, int32, ordered as |x| is."""
    return block.float().abs().flatten().view(torch.int32)


def on_processor(tensor: Tensor) -> bool:
    """Whether numpy can look at a tensor where it lies."""
    return tensor.device.type == "cpu"


def countable(block: Tensor) -> np.ndarray | Tensor:
    """`magnitude_bits`, in numpy where it can look at them: its counts and selections take a third of torch's time."""
    bits = magnitude_bits(block)
    return bits.numpy() if on_processor(block) else bits


def binned(values: np.ndarray | Tensor, bins: int) -> np.ndarray:
    """How often each number below `bins` occurs, int64."""
    if isinstance(values, Tensor):
        return torch.bincount(values, minlength=bins).cpu().numpy()
    return np.bincount(values, minlength=bins)


def nth_largest(values: np.ndarray, n: int) -> int:
    """The n-th largest of some integers, n from 1."""
    return int(np.partition(values, len(values) - n)[len(values) - n])


def as_magnitude(bits: int) -> float:
    """The non-negative fp32 number of a bit pattern."""
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()


def nth_from_top(counts: np.ndarray, n: int) -> tuple[int, int]:
    """The bin that holds the n-th largest item (n from 1), and its place counted from the top of that bin."""
    from_top = counts[::-1].cumsum()
    position = int(np.searchsorted(from_top, n))
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
