"""What starts an experiment's jobs on other machines. A new way to start them is one file beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from guards.ranges import Ranged, at_least


@dataclass(frozen=True)
class Task:
    """One command, on all processes of its job.

    Attributes:
        label: what it is about, such as a specialty; a folder's name.
        command: program and arguments; they go through no shell.
    """

    label: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Commands that are independent of each other; each job of a list waits for all of the one before.

    Attributes:
        part: what is done: base, agent, train, merge, evaluate, finish.
        name: for the scheduler.
        tasks: at least one.
        nodes: machines of each task.
        processes: of each task on each machine.
        gpus: of each task on each machine.
    """

    part: str
    name: str
    tasks: tuple[Task, ...]
    nodes: int = 1
    processes: int = 1
    gpus: int = 0

    @property
    def resources(self) -> str:
        """What one task is given, in words."""
        beside = f"{self.nodes} node{'s' * (self.nodes > 1)} x {self.processes} process{'es' * (self.processes > 1)}"
        return f"{beside}, {self.gpus} GPU{'s' * (self.gpus != 1)} per node"


class Launcher:
    """Starts jobs one after another, the tasks of each side by side."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """What every way of starting jobs is told."""

        gpus: bool = True
        """Ask for a GPU for each process; none is asked for with trainer.accelerator=cpu either."""
        cpus: Annotated[int, at_least(1)] = 4
        """CPU cores of each process."""
        evaluation_shards: Annotated[int, at_least(1)] = 1
        """Tasks that the questions of the matrix are dealt to; with 1 they are answered after the merge, by its job."""
        curation_shards: Annotated[int, at_least(1)] = 1
        """Tasks that the questions of a curation are dealt to; with 1 one job does all of it."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def describe(self, jobs: Sequence[Job], folder: Path) -> str:
        """What `start` would do, to the last argument.

        Args:
            jobs: in order.
            folder: of the jobs' scripts and output.
        """
        raise NotImplementedError

    def refuse(self, folder: Path) -> None:
        """Refuse to start anything while earlier jobs of the folder wait or run; where that can be known.

        Raises:
            RuntimeError: names the jobs.
        """

    def start(self, jobs: Sequence[Job], folder: Path) -> str:
        """Start the jobs; returns what to tell the user.

        Args:
            jobs: in order.
            folder: of the jobs' scripts and output.

        Raises:
            RuntimeError: they could not be started, or one that is waited for failed.
        """
        raise NotImplementedError
