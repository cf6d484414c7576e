"""From a checked experiment that names a launcher to started jobs, or to a text that says what would be started."""

from __future__ import annotations

from artifacts.folders import write_failure, write_status
from configs.build import build
from experiment.claim import clear_overwritten, refuse_changed
from experiment.context import ExperimentContext
from experiment.launchers.plan import jobs_of
from experiment.run import refuse_what_cannot_be
from guards.printable import printable_lines

LONGEST, LINES = 20_000, 5_000
"""Characters of a line, and lines, that a dry run prints; no job of ours has as many."""


def launch(context: ExperimentContext, *, dry_run: bool) -> None:
    """Hand an experiment to its launcher, or print what that would do.

    Raises:
        ConfigError: settings that cannot be run, or that differ from the folder's.
        RuntimeError: the jobs could not be started, or one that is waited for failed.
    """
    refuse_what_cannot_be(context)
    refuse_changed(context)
    launcher = build(context.experiment.launcher)
    folder = (context.folder.path / "jobs").absolute()
    if dry_run:
        told = launcher.describe(jobs_of(context, launcher.config), folder)
        print(printable_lines(told, LONGEST, LINES))
        print("Nothing was started. What a step takes: the same command with launcher=null --dry-run")
        return
    launcher.refuse(folder)  # before anything is cleared beneath jobs that run, or their state is written over
    clear_overwritten(context)
    jobs = jobs_of(context, launcher.config)
    if not jobs:
        print(f"{context.experiment.name}: nothing is left to do here")
        return
    write_status(context.folder.path, "submitted", jobs=[f"{job.name}: {job.resources}" for job in jobs])
    try:
        print(f"{launcher.start(jobs, folder)}; each run's status.json says how it stands", flush=True)
    except BaseException as error:
        write_failure(context.folder.path, error, phase="launch")
        raise
