"""This machine: the tasks of a job as processes side by side, each on a GPU of its own where there are several."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from artifacts.gpus import own_gpu
from artifacts.ranks import without_ranks
from experiment.launchers.interface import Job, Launcher, Task
from experiment.side_by_side import LOOK_SECONDS, end_of
from guards.ranges import at_least


class Here(Launcher):
    """Runs the jobs on this machine, to their end; what stops the command stops them, each at its next safe point."""

    @dataclass(frozen=True)
    class Config(Launcher.Config):
        """How much at once."""

        workers: Annotated[int, at_least(1)] = 1
        """Tasks side by side."""

    config: Config

    def describe(self, jobs: Sequence[Job], folder: Path) -> str:
        """The tasks with their commands."""
        lines = []
        for number, job in enumerate(jobs, 1):
            lines.append(f"job {number}: {job.name}: {len(job.tasks)} tasks, {self.config.workers} at once")
            lines += [f"  $ {shlex.join(task.command)}" for task in job.tasks]
        return "\n".join(lines)

    def start(self, jobs: Sequence[Job], folder: Path) -> str:
        """Run the jobs one after another.

        Raises:
            RuntimeError: a task failed; the others of its job were let go on to their end.
        """
        for job in jobs:
            print(f"{job.name}: {', '.join(task.label for task in job.tasks)}", flush=True)
            self.run(job, folder)
        return f"Output of the tasks: {folder}"

    def run(self, job: Job, folder: Path) -> None:
        """Run a job's tasks, so many at once.

        Raises:
            RuntimeError: a task failed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        waiting, running, failed = list(job.tasks), {}, []
        places = list(range(self.config.workers))
        try:
            while waiting or running:
                while waiting and places:
                    place, task = places.pop(0), waiting.pop(0)
                    running[place] = task, begin(task, place, job, folder)
                time.sleep(LOOK_SECONDS)
                for place, (task, process) in list(running.items()):
                    if (code := process.poll()) is not None:
                        del running[place]
                        places.append(place)
                        failed += [f"{task.label}: {told(code)}, see {output_of(folder, task)}"] if code else []
        except BaseException:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
            raise
        if failed:
            raise RuntimeError(f"{job.name} failed in {'; '.join(failed)}")


def begin(task: Task, place: int, job: Job, folder: Path) -> subprocess.Popen:
    """Start a task; its output goes on in its file."""
    alone = own_gpu(place, {}) if job.gpus == 1 else {}
    with open(output_of(folder, task), "ab") as file:
        # In a session of its own Ctrl-C reaches it through us alone, once, and it can record where it stood.
        streams = {"stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
        return subprocess.Popen(task.command, env=without_ranks() | alone, **streams)


def output_of(folder: Path, task: Task) -> Path:
    """Where a task's output goes."""
    return folder / f"{task.label}.out"


def told(code: int) -> str:
    """How a task ended, by its exit code.

    Examples:
        >>> told(1), told(130), told(-9)
        ('exit code 1', 'interrupted', 'killed by SIGKILL; was memory short?')
    """
    return end_of(code) if code < 0 else "interrupted" if code == 130 else f"exit code {code}"
