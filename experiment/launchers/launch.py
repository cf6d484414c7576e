"""From a checked experiment that names a launcher to started jobs, or to a text that says what would be started."""

from __future__ import annotations

from artifacts.folders import read_state, write_status
from configs.build import build
from experiment.claim import clear_overwritten, refuse_changed
from experiment.context import ExperimentContext
from experiment.launchers.plan import jobs_of
from experiment.run import refuse_what_cannot_be


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
        print(launcher.describe(jobs_of(context, launcher.config), folder))
        print("Nothing was started. What a step takes: the same command with launcher=null --dry-run")
        return
    clear_overwritten(context)
    jobs = jobs_of(context, launcher.config)
    if read_state(context.folder.path) != "finished":
        write_status(context.folder.path, "submitted", jobs=[f"{job.name}: {job.resources}" for job in jobs])
    print(launcher.start(jobs, folder), flush=True)
