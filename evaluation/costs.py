"""What training took, experiment by experiment, beside what came of it: of one experiment and all that it requires."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.report_files import Table

TIMINGS = "timings.json"


@dataclass(frozen=True)
class Cost:
    """All runs of one experiment together; None where a run does not say, as of an earlier version.

    Attributes:
        experiment: its name.
        runs: finished ones.
        steps: batches that were trained on.
        rollouts: answers that were written for training, those of teachers included; of the first of several devices.
        cpu_s: processor seconds of the training processes, likewise, validation and cards included; loaders' workers
            are not.
        peak_mib: the most memory that one of them held.
    """

    experiment: str
    runs: int
    steps: int
    rollouts: float | None
    cpu_s: float | None
    peak_mib: float


def costs_of(experiment: Path) -> list[Cost]:
    """Of an experiment's folder and of those that it requires, lowest first; those without a finished run are left out.

    Raises:
        ValueError: a file is damaged; names it.
    """
    folder = experiment.parent if experiment.suffix == ".jsonl" else experiment
    folder = folder.parent if folder.name == "evaluation" else folder
    settings = read(folder / "experiment.json") or {}
    places = (place_of(settings, called, one) for called, one in (settings.get("required") or {}).items())
    costs = (cost_of(folder.parent / place) for place in (*places, folder.name))
    return [cost for cost in costs if cost is not None]


def place_of(settings: Mapping[str, Any], called: str, required: Mapping[str, Any]) -> str:
    """Where a required experiment lies, seen from the `runs_dir` of the one that requires it: all may have moved since.

    Examples:
        >>> place_of({"runs_dir": "runs/seed0"}, "base", {"name": "tiny", "runs_dir": "runs/shared"})
        '../shared/tiny'
        >>> place_of({}, "base", {})
        'base'
    """
    home, own = settings.get("working_folder", ""), settings.get("runs_dir", "")
    own, other = (os.path.join(home, place) for place in (own, required.get("runs_dir", own)))
    return os.path.normpath(os.path.join(os.path.relpath(other or ".", own or "."), required.get("name", called)))


def cost_of(folder: Path) -> Cost | None:
    """Of the runs of one experiment; None where none has ended."""
    found = [times for file in sorted(folder.glob(f"*/{TIMINGS}")) if (times := read(file)) is not None]
    if not found:
        return None
    peak = max(float(times.get("memory/peak_mib", 0)) for times in found)
    steps = sum(int(times.get("batches", 0)) for times in found)
    return Cost(folder.name, len(found), steps, total(found, "rollouts"), total(found, "cpu_s"), peak)


def total(found: Sequence[dict[str, Any]], key: str) -> float | None:
    """Sum over runs that all say it."""
    return sum(float(times[key]) for times in found) if all(key in times for times in found) else None


def read(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises:
        ValueError: it holds none.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file}: is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: is damaged (no JSON object)")
    return found


def costs_table(costs: Sequence[Cost]) -> Table:
    """For reading."""
    head = ["experiment", "runs", "steps", "rollouts", "CPU seconds", "peak memory, MiB"]
    return Table(head, [list(cells(cost)) for cost in costs], names=3)


def cells(cost: Cost) -> Iterator[str]:
    """A row for reading."""
    yield from (cost.experiment, str(cost.runs), str(cost.steps))
    for value in (cost.rollouts, cost.cpu_s):
        yield "-" if value is None else f"{value:.0f}"
    yield f"{cost.peak_mib:.0f}"
