"""One JSON line per measurement, written at once: what was measured stands even if the machine is taken away."""

from __future__ import annotations

import gc
import json
import platform
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.sizes import GIB
from experiment.provenance import git_state, installed

PACKAGES = ("torch", "transformers", "peft", "lightning", "bitsandbytes")


class SkipError(Exception):
    """What is wanted cannot be measured here; says why."""


class OutOfTimeError(Exception):
    """A part's seconds are over."""


class Lines:
    """Measures parts and writes their lines.

    Attributes:
        written: every line so far.
        failed: whether a part ended by an error that is neither a lack of memory nor of time.
    """

    def __init__(self, path: Path, seconds: float, device: str, commit: str | None = None) -> None:
        """Start the clock.

        Args:
            path: file to write; what it held is replaced.
            seconds: for everything together.
            device: `cuda` or `cpu`.
            commit: to name where there is no git checkout.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._end = time.monotonic() + seconds
        self._seconds, self._device = seconds, device
        self.written: list[dict[str, Any]] = []
        self.failed = False
        git = git_state() or {"commit": commit, "dirty": None}
        card = torch.cuda.get_device_name() if device == "cuda" else f"none ({platform.machine()} processor)"
        self._facts = {"card": card, "python": platform.python_version(), **git}
        self._facts |= {name: installed(name) for name in PACKAGES}

    @property
    def left(self) -> float:
        """Seconds until everything must be over."""
        return self._end - time.monotonic()

    def measure(self, part: str, size: str, budget: float, work: Callable[[], Mapping[str, Any]]) -> bool:
        """Run one part within its budget and write its line.

        A part is not begun where less than half its budget is left. Neither a lack of memory nor an error ends the
        others: the machine is at hand for minutes, and what the rest can tell is wanted all the same.

        Args:
            part: its name.
            size: of the model.
            budget: seconds that it may take.
            work: does it; what it returns goes into the line, over what is put there by itself.

        Returns:
            Whether it was measured.
        """
        if self.left < budget / 2:
            text = f"{max(self.left, 0):.0f} s of {self._seconds:.0f} are left, and it may take {budget:.0f}"
            self.write(part, size, skipped=f"no time: {text}")
            return False
        release(self._device)
        started, limit = time.monotonic(), min(budget, self.left)
        try:
            with time_limit(limit):
                found = dict(work())
        except SkipError as error:
            self.write(part, size, skipped=str(error))
            return False
        except Exception as error:
            spent = {"seconds": round(time.monotonic() - started, 3), "peak_gib": peak_gib(self._device)}
            self.write(part, size, **spent, failed=self.told(error, limit))
            return False
        spent = {"seconds": round(time.monotonic() - started, 3), "peak_gib": peak_gib(self._device), "repeats": 1}
        self.write(part, size, **(spent | found))
        return True

    def told(self, error: Exception, limit: float) -> str:
        """Why a part ended early; notes where that is a fault."""
        if isinstance(error, torch.OutOfMemoryError):
            return f"out of memory: {str(error).partition('. ')[0]}"
        if isinstance(error, OutOfTimeError):
            return f"out of time: it was stopped after {limit:.0f} s"
        self.failed = True
        traceback.print_exception(error)
        return f"{type(error).__name__}: {error}"[:2000]

    def write(self, part: str, size: str, **found: Any) -> None:
        """Write a line now; every line has all facts, and null where nothing was measured."""
        head = {"part": part, "size": size, "seconds": None, "peak_gib": None, "repeats": 0}
        line = head | found | self._facts
        self.written.append(line)
        text = json.dumps(line)
        print(text, file=self._file, flush=True)
        print(text, flush=True)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in this thread when the time is over; a call into a library is let finish first."""

    def over(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 20.0)  # again, should a library swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def release(device: str) -> None:
    """Give back what nobody holds, and count the peak anew."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """The most memory held since `release`, in GiB: of the card, or of this process since it began."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / GIB, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 3)


def now(device: str) -> float:
    """Seconds on the clock, once all kernels are through."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
