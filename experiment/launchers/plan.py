"""Which jobs bring an experiment to its end: first what it stands on, then its own runs, then what is made of them.

Experts of several specialties are independent, so that they are tasks of one job. A base, and an agent over all
specialties, is one run, which several tasks may wait for: it has a job of its own, before whatever stands on it.
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
    jobs = [job for member in context.lineage for job in training_of(context, member, config)]
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


def training_of(context: ExperimentContext, member: ExperimentContext, config: Launcher.Config) -> Iterator[Job]:
    """The job that trains one experiment of a lineage, once those before it have ended; none where nothing is to do.

    Experts stand on experts of their own specialty alone, so that a task of the topmost trains those beneath it too.

    Args:
        context: that was asked for.
        member: of its lineage.
        config: of the launcher.
    """
    above = [other for other in context.lineage if stands_on(other, member)]
    if member.provides == "agent" or (member.provides == "base" and above):
        part = "base" if member.provides == "base" else "agent" if above else "train"
        tasks = (task(member, AGENT if member.provides == "agent" else "base", "train"),) if to_do(member) else ()
    elif member.provides == "nothing":
        return
    else:
        higher = {specialty for other in above if other.provides == "expert" for specialty in other.specialties}
        todo = [one for one in asked_of(context, member) if one not in higher and trains(member, one)]
        part, tasks = "train", tuple(task(member, one, "train", f"only={json.dumps([one])}") for one in todo)
    if tasks:
        yield Job(part, f"{member.experiment.name}-{part}", tasks, *size(member, config))


def stands_on(other: ExperimentContext, member: ExperimentContext) -> bool:
    """Whether an experiment is made from what another one leaves."""
    return member.folder.path in [one.folder.path for one in other.lineage[:-1]]


def asked_of(context: ExperimentContext, member: ExperimentContext) -> list[str]:
    """The specialties of which a member's experts are wanted: an agent that is to come stands on those of all its."""
    wanted = set(context.experiment.only or context.specialties)
    for other in context.lineage:
        if other.provides == "agent" and stands_on(other, member) and to_do(other):
            wanted |= {*other.specialties}
    return [specialty for specialty in member.specialties if specialty in wanted]


def to_do(member: ExperimentContext) -> list[str]:
    """Runs that have not left their result, or will not have it once `overwrite` has cleared the folder."""
    cleared = member.experiment.overwrite and member.provides != "nothing"
    return member.runs if cleared else unfinished(member, member.runs)


def trains(member: ExperimentContext, specialty: str) -> bool:
    """Whether a specialty's run of an experiment is still to be trained, or one of the experts beneath it."""
    return any(specialty in to_do(one) for one in member.lineage if one is member or one.provides == "expert")


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
