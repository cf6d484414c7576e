"""Which jobs bring an experiment to its end: first the base, then each specialty by itself, then what is made of them.

Experts of several specialties are independent, so that they are tasks of one job. The base that they stand on is
trained by a job before, so that no task waits for another one's training on its own cards.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from configs.problems import ConfigError, Problem
from configs.schema import AGENT
from experiment.context import ExperimentContext
from experiment.launchers.interface import Job, Launcher, Task
from experiment.run import unfinished

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def jobs_of(context: ExperimentContext, config: Launcher.Config) -> list[Job]:
    """The jobs, in order; what is finished already has none.

    Raises:
        ConfigError: a number of devices or nodes that no job can be sized by.
    """
    name, wanted = context.experiment.name, list(context.experiment.only) or context.specialties
    jobs = [
        Job(f"base{number}", f"{member.experiment.name}-base", (task(member, "base", "train"),), *size(member, config))
        for number, member in enumerate(bases_to_train(context), 1)
    ]
    todo = [specialty for specialty in wanted if trains(context, specialty)]
    if context.provides == "agent" and (todo or to_do(context)):
        jobs.append(Job("train", f"{name}-train", (task(context, AGENT, "train"),), *size(context, config)))
    elif todo:
        tasks = tuple(task(context, one, "train", f"only={json.dumps([one])}") for one in todo)
        jobs.append(Job("train", f"{name}-train", tasks, *size(context, config)))
    if set(to_do(context)) - set(context.runs_of(wanted)):
        return jobs  # specialties that nobody asked for now are still to come: nothing is made of the others yet
    alone = (1, 1, gpus_of(context, 1, config))
    one_process = [f"{c.called}:trainer.{key}=1" for c in context.lineage for key in ("devices", "num_nodes")]
    shards = config.evaluation_shards
    if shards > 1:
        jobs.append(Job("merge", f"{name}-merge", (task(context, "merge", "merge", *one_process),), *alone))
        shares = [f"{number}/{shards}" for number in range(1, shards + 1)]
        tasks = tuple(task(context, f"share{one.replace('/', 'of')}", one, *one_process) for one in shares)
        jobs.append(Job("evaluate", f"{name}-evaluate", tasks, *alone))
    jobs.append(Job("finish", f"{name}-finish", (task(context, "finish", "", *one_process),), *alone))
    return jobs


def to_do(member: ExperimentContext) -> list[str]:
    """Runs that have not left their result, or will not have it once `overwrite` has cleared the folder."""
    cleared = member.experiment.overwrite and member.provides != "nothing"
    return member.runs if cleared else unfinished(member, member.runs)


def bases_to_train(context: ExperimentContext) -> Iterator[ExperimentContext]:
    """The bases beneath an experiment that have not left their weights, lowest first; itself is no one's base."""
    for member in context.lineage[:-1]:
        if member.provides == "base" and to_do(member):
            yield member


def trains(context: ExperimentContext, specialty: str) -> bool:
    """Whether an expert of a specialty is still to be trained, here or beneath."""
    return any(
        specialty in to_do(member)
        for member in context.lineage
        if member.provides == "expert" or (member is context and member.provides != "agent")
    )


def task(context: ExperimentContext, label: str, part: str, *own: str) -> Task:
    """The same command as the user's, for one part of the work.

    Args:
        context: of the experiment that the command runs.
        label: of the task.
        part: as `Part.read` reads it; empty for all that is left.
        own: further settings; those of the experiment itself need no name.
    """
    called = context.called
    given = [setting if ":" in setting.partition("=")[0] else f"{called}:{setting}" for setting in own]
    given += [f"{called}:launcher=null", "workers=1", f"{called}:workers=1"]
    given += [f"{member.called}:overwrite=false" for member in context.lineage]  # that was done once, before
    command = [sys.executable, str(TRAIN), "--config", str(context.path), *context.arguments, *given]
    return Task(label, (*command, "--part", part) if part else tuple(command))


def size(context: ExperimentContext, config: Launcher.Config) -> tuple[int, int, int]:
    """Nodes, and processes and GPUs on each.

    Raises:
        ConfigError: `devices` is no number.
    """
    trainer = context.experiment.trainer
    devices = trainer.get("devices", 1)
    devices = int(devices) if isinstance(devices, str) and devices.isdecimal() else devices
    if not isinstance(devices, int) or devices < 1:
        message = f"a launcher asks for cards by their number on each node, and {devices!r} is none; write 1, 2, ..."
        raise ConfigError([Problem(str(context.path), "trainer.devices", devices, message)])
    return int(trainer.get("num_nodes", 1)), devices, gpus_of(context, devices, config)


def gpus_of(context: ExperimentContext, processes: int, config: Launcher.Config) -> int:
    """GPUs of so many processes."""
    return processes if config.gpus and context.experiment.trainer.get("accelerator") != "cpu" else 0
