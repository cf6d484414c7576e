"""Where a step's time goes: rollout, reward, reference, teacher, forward, backward, optimizer."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class PhaseClock:
    """Seconds per phase. Phases nest, and time counts for the innermost: a phase does not include what it calls.

    Attributes:
        wall: wall seconds per phase since the last `take`.
        cpu: processor seconds of this process per phase since the last `take`.
        counts: whatever was counted since the last `take`, tokens above all.
        total: wall seconds per phase since the start.
        total_counts: counts since the start.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self.total_counts: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = (0.0, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens within."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def count(self, name: str, number: int) -> None:
        """Add to a count."""
        self.counts[name] += number
        self.total_counts[name] += number

    def _book(self) -> None:
        """Give the time since the last change to the innermost open phase."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # kernels run on after their call
        now = (time.perf_counter(), time.process_time())
        if self._open:
            name, passed = self._open[-1], now[0] - self._since[0]
            self.wall[name] += passed
            self.total[name] += passed
            self.cpu[name] += now[1] - self._since[1]
        self._since = now

    def take(self, steps: int = 1) -> dict[str, float]:
        """What the last steps report, by TensorBoard tag; begins anew.

        Args:
            steps: how many; times are means per step.

        Returns:
            `time/<phase>_s`, `speed/<rollout|train>_tokens_per_s` where tokens were counted, `memory/peak_mib`.
        """
        metrics = {f"time/{name}_s": seconds / steps for name, seconds in self.wall.items()}
        metrics |= speeds(self.wall, self.counts) | {"memory/peak_mib": peak_mib()}
        self.wall, self.cpu, self.counts = Counter(), Counter(), Counter()
        return metrics

    def sums(self) -> dict[str, dict[str, float]]:
        """Times and counts since the start, to go on from."""
        return {"seconds": dict(self.total), "counts": dict(self.total_counts)}

    def go_on_from(self, sums: Mapping[str, Mapping[str, float]]) -> None:
        """Take up the sums of a run that was interrupted."""
        self.total.update(sums["seconds"])
        self.total_counts.update(sums["counts"])

    def summary(self) -> dict[str, float]:
        """As `take`, for everything since the start."""
        metrics = {f"time/{name}_s": seconds for name, seconds in self.total.items()}
        return metrics | speeds(self.total, self.total_counts) | {"memory/peak_mib": peak_mib()}


def speeds(wall: Counter[str], counts: Counter[str]) -> dict[str, float]:
    """Generated tokens per second of rollout, and trained tokens per second of forward and backward."""
    phases = {"rollout": ("rollout",), "train": ("forward", "backward")}
    seconds = {name: sum(wall[phase] for phase in parts) for name, parts in phases.items()}
    return {
        f"speed/{name}_tokens_per_s": counts[f"{name}_tokens"] / spent
        for name, spent in seconds.items()
        if spent and counts[f"{name}_tokens"]
    }


def peak_mib() -> float:
    """The most memory held so far: of the accelerator if there is one, else of this process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
