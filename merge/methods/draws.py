"""Uniform numbers that depend on where they are used, not on when: no generator, no order, no device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

INCREMENT, FIRST, SECOND = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""SplitMix64's constants as signed 64-bit numbers."""


def uniform(seed: int, expert: str, module: str, rows: slice, columns: int) -> Tensor:
    """One number per entry of a block of rows, a function of (seed, expert, module, row, column) alone.

    Args:
        seed: any integer.
        expert: its name.
        module: its name.
        rows: of the module's matrix, with start and stop.
        columns: n.

    Returns:
        (rows, n) fp32 in [0, 1), multiples of 2^-24.

    Source: SplitMix64, Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
    """
    digest = hashlib.sha256(f"{seed}\x1f{expert}\x1f{module}".encode()).digest()
    key = int.from_bytes(digest[:8], "little", signed=True)
    places = torch.arange(rows.start * columns + 1, rows.stop * columns + 1, dtype=torch.int64)
    z = places * INCREMENT + key  # wraps around
    z = (z ^ shifted(z, 30)) * FIRST
    z = (z ^ shifted(z, 27)) * SECOND
    z = z ^ shifted(z, 31)
    return (shifted(z, 40).float() * 2.0**-24).unflatten(0, (rows.stop - rows.start, columns))


def shifted(z: Tensor, by: int) -> Tensor:
    """Shift right without dragging the sign along: int64 -> int64."""
    return (z >> by) & (2 ** (64 - by) - 1)
