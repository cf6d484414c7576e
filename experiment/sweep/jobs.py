"""A sweep's runs as jobs of the launchers: what all stand on, the tuning, the arms, the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from configs.build import build
from experiment.launchers.here import Here
from experiment.launchers.interface import Job, Launcher, Task
from experiment.launchers.plan import size
from experiment.run import assemble
from experiment.sweep.choice import choice_of
from experiment.sweep.runs import Run, Runs
from experiment.sweep.standing import is_finished

REPORT = "report"
"""The part of the work that writes the report."""


def command_of(runs: Runs, *more: str) -> list[str]:
    """The command that this sweep was called by, for one part of it or all."""
    return [sys.executable, "-m", "experiment.sweep", str(runs.file.path), *runs.file.overrides, *more]


def launcher_of(runs: Runs) -> Launcher:
    """What starts the runs."""
    sweep = runs.file.sweep
    return Here(Here.Config(workers=sweep.workers)) if sweep.launcher is None else build(sweep.launcher)


def jobs_of(runs: Runs, config: Launcher.Config) -> list[Job]:
    """The jobs, in order; what is finished already has none. The report comes last, always.

    Args:
        runs: of the sweep.
        config: of the launcher.
    """
    sweep, name = runs.file.sweep, runs.file.sweep.name
    required = [run for run in runs.required() if not is_finished(run)]
    stages = [[run for run in required if run.level == level] for level in sorted({run.level for run in required})]
    stages.append([run for arm in sweep.arms for run in runs.tried_of(arm) if not is_finished(run)])
    stages.append([run for run in planned_arms(runs) if not is_finished(run)])
    jobs: list[Job] = []
    for stage in filter(None, stages):
        kind = stage[0].kind
        for given, alike in by_size(stage, config).items():
            label = f"{kind}{len(jobs)}"
            jobs.append(Job(label, f"{name}-{label}", tuple(task(runs, run.label) for run in alike), *given))
    jobs.append(Job(REPORT, f"{name}-{REPORT}", (task(runs, REPORT),)))
    return jobs


def planned_arms(runs: Runs) -> list[Run]:
    """Every arm at every seed; with what tuning chose, where it has ended."""
    sweep = runs.file.sweep
    points = {arm: point_of(runs, arm) for arm in sweep.arms}
    return [runs.arm(arm, seed, points[arm]) for seed in sweep.seeds for arm in sweep.arms]


def point_of(runs: Runs, arm: str) -> dict[str, Any] | None:
    """The settings that tuning chose for an arm; None where nothing is tuned, or tuning has not ended."""
    if not all(is_finished(run) for run in runs.tried_of(arm)):
        return None
    found = choice_of(runs, arm)
    return None if found is None else found.values


def by_size(stage: Sequence[Run], config: Launcher.Config) -> dict[tuple[int, int, int], list[Run]]:
    """The runs of a stage by the machines and cards that they take."""
    found: dict[tuple[int, int, int], list[Run]] = {}
    for run in stage:
        found.setdefault(size(assemble(run.loaded), config), []).append(run)
    return found


def task(runs: Runs, label: str) -> Task:
    """One run, or the report, as a command of its own."""
    return Task(label, tuple(command_of(runs, "--part", label)))
