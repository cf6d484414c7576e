"""What is measured of a training run: CPU seconds, phases and counts per step, memory added. Used by both sides."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib import metadata
from typing import Any

import psutil

MIB = 2**20


@dataclass
class Step:
    """One optimisation step.

    Attributes:
        cpu_s: CPU seconds of the process.
        wall_s: seconds on the clock.
        phases: CPU seconds by phase.
        counts: how much went through the parts of the model.
        values: what the trainer reported (loss, reward, gradient norm).
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)


class Recorder:
    """Collects steps: `begin`, work in `phase`s, `end`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.now = Step()
        self.started = (0.0, 0.0)

    def begin(self) -> None:
        """Start a step; what was recorded since the last one's end is forgotten."""
        self.now = Step()
        self.started = (time.process_time(), time.perf_counter())

    def end(self) -> None:
        """Finish the step."""
        self.now.cpu_s = time.process_time() - self.started[0]
        self.now.wall_s = time.perf_counter() - self.started[1]
        self.steps.append(self.now)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count of the step."""
        self.now.counts[name] = self.now.counts.get(name, 0) + amount

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the CPU seconds of a block to a phase; phases must not nest."""
        started = time.process_time()
        try:
            yield
        finally:
            self.now.phases[name] = self.now.phases.get(name, 0.0) + time.process_time() - started

    def timed(self, owner: Any, method: str, name: str) -> None:
        """Make every call of an object's method a phase."""
        original = getattr(owner, method)

        @wraps(original)
        def inside(*arguments: Any, **settings: Any) -> Any:
            with self.phase(name):
                return original(*arguments, **settings)

        setattr(owner, method, inside)

    def count_tokens(self, language_model: Any) -> None:
        """Count what every call of the language model computes, padding included."""

        def after(_module: Any, _inputs: tuple, settings: dict, _outputs: Any) -> None:
            embeds = settings["inputs_embeds"]
            self.count("lm_tokens", embeds.shape[:-1].numel())

        language_model.register_forward_hook(after, with_kwargs=True)


class PeakMemory:
    """Resident memory of this process while the block runs, looked at every 20 ms."""

    def __enter__(self) -> PeakMemory:
        self._process, self._over = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def added_mib(self) -> float:
        """MiB above what was resident at the start."""
        return (self.peak - self.before) / MIB


def summary(recorder: Recorder, memory: PeakMemory, *, warm_up: int = 1) -> dict[str, Any]:
    """Medians over the steps after the warm-up; `other` is what no phase covers.

    Args:
        recorder: with its steps.
        memory: over the whole of training, the warm-up included.
        warm_up: steps that are left out.
    """
    steps = recorder.steps[warm_up:]
    for step in steps:
        if step.phases:
            step.phases.setdefault("other", step.cpu_s - sum(step.phases.values()))
    return {
        "cpu_s": statistics.median(step.cpu_s for step in steps),
        "wall_s": statistics.median(step.wall_s for step in steps),
        "peak_added_mib": memory.added_mib,
        "phases": medians([step.phases for step in steps]),
        "counts": medians([step.counts for step in steps]),
        "per_step": [{"cpu_s": step.cpu_s, "wall_s": step.wall_s, **step.values} for step in recorder.steps],
    }


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Median of every key; where it is absent it counts as 0."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: statistics.median(one.get(name, 0) for one in found) for name in names}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions."""
    return {name: metadata.version(name) for name in packages}
