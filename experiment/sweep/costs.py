"""What the runs of a sweep took, and what those that are left will take by it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean

from artifacts.durable import write_text
from artifacts.ranks import is_first
from experiment.dry_run import duration
from experiment.sweep.runs import Run

FOLDER = "costs"


def seconds_of(root: Path, label: str) -> float:
    """Seconds that the starts of a run took together; 0 where none is known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((root / FOLDER / f"{label}.json").read_text("utf-8"))["seconds"])
    return 0.0


@contextmanager
def counted(root: Path, label: str) -> Iterator[None]:
    """Count the time of a block for a run, whatever ends it; time of a killed process is lost."""
    begun = time.monotonic()
    try:
        yield
    finally:
        if is_first():
            seconds = seconds_of(root, label) + time.monotonic() - begun
            write_text(root / FOLDER / f"{label}.json", json.dumps({"seconds": round(seconds, 1)}) + "\n")


def estimate(root: Path, done: Sequence[Run], left: Sequence[Run], workers: int) -> str:
    """In words, what is left to do will take, by the mean of the finished runs most like each.

    Args:
        root: of the sweep.
        done: finished runs.
        left: the others.
        workers: processes side by side.
    """
    if not left:
        return "nothing is left to run"
    known = [(run, seconds) for run in done if (seconds := seconds_of(root, run.label)) > 0]
    total, unknown = 0.0, 0
    for run in left:
        alike = [s for other, s in known if other.arm == run.arm and other.kind == run.kind]
        alike = alike or [s for other, s in known if other.arm == run.arm]
        alike = alike or [s for other, s in known if run.kind != "required" and other.kind != "required"]
        total, unknown = (total + fmean(alike), unknown) if alike else (total, unknown + 1)
    told = f"{len(left)} runs are left"
    if total:
        told += f": about {duration(total)} of work, {duration(total / workers)} with {workers} at a time"
    if unknown:
        told += f"{'; of' if total else '; of all'} {unknown} nothing alike has finished yet"
        told += ", and the command of a run with --dry-run says what it takes"
    return told
