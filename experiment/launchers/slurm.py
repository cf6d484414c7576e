"""SLURM: one script per job, submitted in a chain; an interrupted task is queued again and goes on where it stopped.

Nothing of a configuration is read by a shell unquoted: commands are quoted word by word, folders go to sbatch as
arguments, and settings that become #SBATCH lines are held to the characters that such names have.

Source: sbatch(1), srun(1), scontrol(1) of SLURM 24.05.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any

from typing_extensions import override

from artifacts.durable import write_text
from experiment.launchers.interface import Job, Launcher
from guards.printable import printable_lines
from guards.ranges import Matches, at_least, between

NAME = Matches(r"[A-Za-z0-9_.,+-]*", "empty or made of letters, digits and '_.,+-'")
SUBMITTED = "submitted.json"
"""What was handed to SLURM, in the folder of the jobs."""

SCRIPT = Template("""\
#!/bin/bash
$options
# Written by `launcher: slurm`. A task that a signal stopped leaves a checkpoint; the same command goes on from it.
cd -- $folder || exit 1
case "$${SLURM_ARRAY_TASK_ID:-0}" in
$cases
  *) echo "no task $${SLURM_ARRAY_TASK_ID}" >&2; exit 1 ;;
esac
restarts="$${SLURM_RESTART_COUNT:-0}"
own="$${SLURM_ARRAY_JOB_ID:+$${SLURM_ARRAY_JOB_ID}_$${SLURM_ARRAY_TASK_ID}}"
export LAUNCHED_AS="slurm job $${own:-$$SLURM_JOB_ID}, restarts: $$restarts, node $${SLURMD_NODENAME:-?}"
child=
trap '[ -z "$$child" ] || kill -TERM "$$child" 2>/dev/null' TERM
srun --wait=300 --cpus-per-task="$$SLURM_CPUS_PER_TASK" "$${task[@]}" &
child=$$!
while wait "$$child"; code=$$?; kill -0 "$$child" 2>/dev/null; do :; done
wait "$$child"; code=$$?
# 130: stopped by a signal. A job that was cancelled stays so, and one that was preempted SLURM queues again by itself.
if [ "$$code" -eq 130 ] && [ "$$restarts" -lt $requeues ] &&
  [ "$$(squeue --noheader --jobs="$$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  echo "interrupted; queued again to go on"
  scontrol requeue "$$SLURM_JOB_ID"
fi
exit "$$code"
""")


class Slurm(Launcher):
    """Writes the job scripts and submits them."""

    @dataclass(frozen=True)
    class Config(Launcher.Config):
        """What is asked of the scheduler for each task; empty leaves it to the cluster."""

        partition: Annotated[str, NAME] = ""
        """Partition, or several with commas."""
        account: Annotated[str, NAME] = ""
        """Who pays."""
        qos: Annotated[str, NAME] = ""
        """Quality of service."""
        reservation: Annotated[str, NAME] = ""
        """Reservation."""
        exclude: Annotated[str, Matches(r"[A-Za-z0-9_.,\[\]-]*", "empty or a list of nodes, such as gpu[03-05]")] = ""
        """Nodes to keep away from."""
        constraint: Annotated[
            str, Matches(r"[A-Za-z0-9_.,+&|*()\[\]:-]*", "empty or features of nodes, joined by '&' or '|'")
        ] = ""
        """Features that nodes must have."""
        gres: Annotated[str, Matches(r"[A-Za-z0-9_.:-]+", "a kind of card, such as gpu or gpu:h100")] = "gpu"
        """What a card is called here; their number is added."""
        memory: Annotated[str, Matches(r"|\d+[KMGT]?", "empty or a size such as 64G")] = ""
        """Main memory of each node."""
        time: Annotated[str, Matches(r"|(\d+-)?\d+(:\d+){0,2}", "empty or a span such as 24:00:00 or 2-12:00:00")] = (
            "24:00:00"
        )
        """Longest time of one task before it is queued again."""
        grace: Annotated[int, between(10, 65535)] = 180
        """Seconds before the end of the time at which a task is told to stop; a step must fit into them."""
        at_once: Annotated[int, at_least(0)] = 0
        """Most tasks of a job side by side; 0 for all."""
        requeues: Annotated[int, at_least(0)] = 20
        """How often a task that was interrupted is started again, to go on where it stopped."""

    config: Config

    def describe(self, jobs: Sequence[Job], folder: Path) -> str:
        """The commands and the scripts."""
        lines, before = [], ""
        for number, job in enumerate(jobs, 1):
            command = shlex.join(self.command(job, script_of(number, job, folder), before))
            lines += [f"job {number}: {job.name}: {len(job.tasks)} x {job.resources}", f"$ {command}"]
            lines += [f"  | {line}" for line in self.script(job).splitlines()]
            before = f"JOB{number}"
        return "\n".join(lines)

    def start(self, jobs: Sequence[Job], folder: Path) -> str:
        """Submit all, each to wait for the one before; all or none.

        Raises:
            RuntimeError: there is no SLURM here, sbatch refused a job, or an earlier submission is still in the queue.
        """
        if shutil.which("sbatch") is None:
            raise RuntimeError(
                "sbatch is not here; jobs are submitted on a login node of a SLURM cluster. launcher=null runs here"
            )
        self.refuse(folder)
        submitted: list[dict[str, Any]] = []
        for number, job in enumerate(jobs, 1):
            path = script_of(number, job, folder)
            write_text(path, self.script(job))
            before = submitted[-1]["id"] if submitted else ""
            try:
                told = called(self.command(job, path, before))
                identifier = told.strip().splitlines()[-1].partition(";")[0] if told.strip() else ""
                if not identifier.isdecimal():
                    raise RuntimeError(f"sbatch answered {told[:200]!r}, which names no job")
            except RuntimeError:
                if submitted:
                    called(["scancel", *(one["id"] for one in submitted)])
                raise
            submitted.append({"id": identifier, "name": job.name, "script": path.name, "tasks": labels(job)})
        write_text(folder / SUBMITTED, json.dumps(submitted, indent=2) + "\n")
        lines = [f"submitted {one['id']}: {one['name']} ({', '.join(one['tasks'])})" for one in submitted]
        return "\n".join([*lines, f"Scripts and output: {folder}"])

    @override
    def refuse(self, folder: Path) -> None:
        if shutil.which("squeue") is not None:
            refuse_twice(folder)

    def command(self, job: Job, script: Path, before: str) -> list[str]:
        """The call of sbatch; no shell reads it.

        Args:
            job: which.
            script: its file.
            before: number of the job to wait for; empty waits for none.
        """
        number = "%A_%a" if len(job.tasks) > 1 else "%j"
        output = f"{script.with_suffix('')}".replace("%", "%%") + f"-{number}.out"
        after = [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"] if before else []
        return ["sbatch", "--parsable", *after, f"--output={output}", str(script)]

    def options(self, job: Job) -> Mapping[str, Any]:
        """What stands in the script's #SBATCH lines."""
        c, last = self.config, len(job.tasks) - 1
        named = ("partition", "account", "qos", "reservation", "exclude", "constraint")
        return {
            "job-name": job.name,
            **({"array": f"0-{last}" + (f"%{c.at_once}" if c.at_once else "")} if last else {}),
            "nodes": job.nodes,
            "ntasks-per-node": job.processes,
            "cpus-per-task": c.cpus,
            **({"gres": f"{c.gres}:{job.gpus}"} if job.gpus else {}),
            **({"mem": c.memory} if c.memory else {}),
            **({"time": c.time} if c.time else {}),
            **{name: getattr(c, name) for name in named if getattr(c, name)},
            "signal": f"B:TERM@{c.grace}",
            "open-mode": "append",
        }

    def script(self, job: Job) -> str:
        """The job's script."""
        options = [f"#SBATCH --{name}={value}" for name, value in self.options(job).items()]
        cases = [f"  {number}) task=({shlex.join(task.command)}) ;;" for number, task in enumerate(job.tasks)]
        return SCRIPT.substitute(
            options="\n".join([*options, "#SBATCH --requeue"]),
            folder=shlex.quote(os.getcwd()),
            cases="\n".join(cases),
            requeues=self.config.requeues,
        )


def script_of(number: int, job: Job, folder: Path) -> Path:
    """Where a job's script lies."""
    return folder / f"{number}-{job.part}.sh"


def labels(job: Job) -> list[str]:
    """What the tasks of a job are about."""
    return [task.label for task in job.tasks]


def refuse_twice(folder: Path) -> None:
    """Refuse to submit again what still waits or runs.

    Raises:
        RuntimeError: names the jobs.
    """
    file = folder / SUBMITTED
    if not file.exists():
        return
    for one in json.loads(file.read_text("utf-8")):
        found = subprocess.run(
            ["squeue", "--noheader", f"--jobs={one['id']}", "--format=%i"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0 and found.stdout.strip():  # SLURM forgets numbers after a while, and says so
            raise RuntimeError(
                f"job {one['id']} ({one['name']}) of an earlier submission is still in the queue; wait for it, or "
                f"`scancel {one['id']}`"
            )


def called(command: Sequence[str]) -> str:
    """What a program of SLURM prints.

    Raises:
        RuntimeError: it failed.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        message = printable_lines(error.stderr.strip()[-1000:])
        raise RuntimeError(f"{command[0]} failed with exit code {error.returncode}: {message}") from error
