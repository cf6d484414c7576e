"""A curation as jobs of the launchers: shares of the questions side by side, then the set from all that was replied."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.build import build, import_class
from curation.run import prepare
from curation.settings import Settings
from experiment.launchers.interface import Job, Launcher, Task
from guards.printable import printable_lines

LONGEST, LINES = 20_000, 5_000
"""Characters of a line, and lines, that a dry run prints."""


def launch(settings: Settings, config: str, overrides: Sequence[str], *, dry_run: bool) -> None:
    """Hand a curation to its launcher, or print what that would do.

    Args:
        settings: that name a launcher.
        config: the file, as the command named it.
        overrides: of the command line.
        dry_run: start nothing.

    Raises:
        ConfigError: as `prepare`.
        UnusableError: a teacher cannot be used.
        RuntimeError: the jobs could not be started, or one that is waited for failed.
    """
    prepare(settings)  # whatever is wrong is told here, and not by every job
    launcher: Launcher = build(settings.launcher)
    jobs, folder = jobs_of(settings, config, overrides, launcher.config), (settings.reply_folder / "jobs").absolute()
    if dry_run:
        print(printable_lines(launcher.describe(jobs, folder), LONGEST, LINES))
        print("Nothing was started. What would be asked at most: the same command with launcher=null --dry-run")
        return
    print(launcher.start(jobs, folder), flush=True)


def jobs_of(settings: Settings, config: str, overrides: Sequence[str], told: Launcher.Config) -> list[Job]:
    """The jobs, in order; arguments as of `launch`, and the launcher's configuration."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(settings.out).name)[:80]
    command = (sys.executable, "-m", "curation", "run", "--config", config, *overrides, "launcher=null")
    teachers = [one for one in (settings.teacher, settings.base, settings.classifier) if one is not None]
    on_device = any(import_class(one.class_path).on_device for one in teachers)
    alone = (1, 1, int(told.gpus and on_device))
    jobs, count, last = [], told.curation_shards, command
    if count > 1:
        last = (*command, "--part", "finish")
        shares = tuple(Task(f"share{n}of{count}", (*command, "--part", f"{n}/{count}")) for n in range(1, count + 1))
        jobs.append(Job("ask", f"{name}-ask", shares, *alone))
    return [*jobs, Job("finish", f"{name}-finish", (Task("finish", last),), *alone)]
