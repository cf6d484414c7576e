"""Ray: the same jobs as tasks of a Ray cluster; the command waits for them, and stops them when it is stopped.

All machines must see the same files under the same paths, as with SLURM. An expert on several cards or machines is as
many processes, told of each other as torchrun would, at places that Ray has reserved together.

Source: Ray 2.60, ray.remote, ray.util.placement_group.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from artifacts.folders import LAUNCHED_AS
from artifacts.ranks import without_ranks
from experiment.launchers.interface import Job, Launcher, Task
from guards.ranges import Matches, at_least

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130
"""Exit code of a command that a signal stopped."""
PATIENCE, LOOK = 300.0, 0.5
"""Seconds that the processes beside one that failed have to end by themselves, and between two looks."""


class Ray(Launcher):
    """Runs the jobs on a Ray cluster, or on one that it starts here."""

    @dataclass(frozen=True)
    class Config(Launcher.Config):
        """Where the cluster is."""

        address: Annotated[str, Matches(r"|auto|[A-Za-z0-9_.:/-]+", "empty, auto, or an address such as host:6379")] = (
            ""
        )
        """The address of a running cluster, or `auto` for the one around this machine; empty starts one here."""
        local_cpus: Annotated[int, at_least(0)] = 0
        """CPU cores of a cluster that is started here; 0 takes all."""
        requeues: Annotated[int, at_least(0)] = 20
        """How often a task that was interrupted is started again, to go on where it stopped."""

    config: Config

    def describe(self, jobs: Sequence[Job], folder: Path) -> str:
        """The tasks with their commands."""
        lines = [f"ray.init(address={self.config.address or 'a cluster on this machine'!r})"]
        for number, job in enumerate(jobs, 1):
            lines.append(
                f"job {number}: {job.name}: {len(job.tasks)} x {job.resources}, {self.cpus(job)} CPUs per node"
            )
            for task in job.tasks:
                lines += [
                    f"  {task.label} > {output_of(folder, number, job, task)}",
                    f"    $ {shlex.join(task.command)}",
                ]
        return "\n".join(lines)

    def start(self, jobs: Sequence[Job], folder: Path) -> str:
        """Run the jobs one after another, to their end.

        Raises:
            RuntimeError: Ray is not installed, or a task failed; names its output.
        """
        ray = imported_ray()
        folder.mkdir(parents=True, exist_ok=True)
        # A worker imports this file; without this it would look for it in an installed package.
        ray.init(
            address=self.config.address or None,
            num_cpus=(self.config.local_cpus or None) if not self.config.address else None,
            runtime_env={
                "env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
            },
            log_to_driver=False,
            include_dashboard=False if not self.config.address else None,
        )
        try:
            for number, job in enumerate(jobs, 1):
                print(f"{job.name}: {', '.join(task.label for task in job.tasks)}", flush=True)
                self.run(ray, number, job, folder)
        finally:
            ray.shutdown()
        return f"Output of the tasks: {folder}"

    def cpus(self, job: Job) -> int:
        """Cores of a task on each machine."""
        return self.config.cpus * job.processes

    def run(self, ray: ModuleType, number: int, job: Job, folder: Path) -> None:
        """Run a job's tasks side by side, each again where it was interrupted.

        Raises:
            RuntimeError: a task failed; the others were let go on to their end.
        """
        waiting = {self.begin(ray, number, job, task, folder, 0): (task, 0) for task in job.tasks}
        failed: list[str] = []
        try:
            while waiting:
                (ended,), _ = ray.wait(list(waiting), num_returns=1)
                task, starts = waiting.pop(ended)
                code = code_of(ray, ended)
                if code == INTERRUPTED and starts < self.config.requeues:
                    print(f"{job.name} {task.label}: interrupted; started again to go on", flush=True)
                    waiting[self.begin(ray, number, job, task, folder, starts + 1)] = (task, starts + 1)
                elif code != 0:
                    failed.append(f"{task.label}: exit code {code}, see {output_of(folder, number, job, task)}")
        except BaseException:
            for one in waiting:
                ray.cancel(one)
            ray.wait(list(waiting), num_returns=len(waiting), timeout=120)
            raise
        if failed:
            raise RuntimeError(f"{job.name} failed in {'; '.join(failed)}")

    def begin(self, ray: ModuleType, number: int, job: Job, task: Task, folder: Path, starts: int) -> Any:
        """Hand a task to Ray; returns what its end is waited for by."""
        resources = {"num_cpus": self.cpus(job), "num_gpus": job.gpus}
        settings = resources | {"max_retries": self.config.requeues}  # of a machine that went away
        output = output_of(folder, number, job, task)
        told = f"ray {job.name} {task.label}, restarts: {starts}"
        if job.nodes == 1:
            place = Place(processes=job.processes)
            start = ray.remote(run_here).options(**settings)
            return start.remote(list(task.command), place, os.getcwd(), str(output), told)
        return (
            ray.remote(run_on_nodes)
            .options(num_cpus=0, max_retries=self.config.requeues)
            .remote(job, task, resources, os.getcwd(), str(output), told)
        )


def imported_ray() -> ModuleType:
    """Ray.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("launcher=ray needs Ray: pip install -r requirements-ray.txt") from error
    return ray


def output_of(folder: Path, number: int, job: Job, task: Task) -> Path:
    """Where a task's output goes."""
    return folder / f"{number}-{job.part}-{task.label}.out"


def code_of(ray: ModuleType, ended: Any) -> int:
    """How a task ended: with 0 only where it succeeded on all machines."""
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        print(f"Ray lost a task: {str(error)[-400:]}", file=sys.stderr)
        return 1


@dataclass(frozen=True)
class Place:
    """Where among the machines of a task one of them stands.

    Attributes:
        node: its number.
        nodes: of the task.
        processes: on each.
        host: the first machine.
        port: that is free on it.
    """

    node: int = 0
    nodes: int = 1
    processes: int = 1
    host: str = "127.0.0.1"
    port: int = 0

    def environments(self) -> list[dict[str, str]]:
        """What each process of this machine is told of itself, as torchrun tells it; a lone process is told nothing."""
        total = self.nodes * self.processes
        shared = {
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
            "WORLD_SIZE": str(total),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "GROUP_RANK": str(self.node),
            "TORCHELASTIC_RUN_ID": f"{self.host}:{self.port}",  # by which Lightning knows that it need start nothing
        }
        ranks = [{"LOCAL_RANK": str(i), "RANK": str(self.node * self.processes + i)} for i in range(self.processes)]
        return [shared | rank for rank in ranks] if total > 1 else [{}]


def run_here(command: Sequence[str], place: Place, folder: str, output: str, told: str) -> int:
    """Run a command on the machine of a Ray worker, once per process; what stops the worker stops them by a signal.

    Returns:
        0, the code of a process that failed, or `INTERRUPTED`.
    """
    if place.port == 0:
        place = replace(place, port=free_port()[1])
    shared = without_ranks() | {LAUNCHED_AS: f"{told}, node {socket.gethostname()}"}
    with open(output, "ab") as file:
        streams = {"stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True, "cwd": folder}
        running = [subprocess.Popen(command, env=shared | own, **streams) for own in place.environments()]
        try:
            codes = ends_of(running)
        except BaseException:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait()
            raise
    return worst(codes)


def ends_of(running: Sequence[subprocess.Popen]) -> list[int]:
    """Exit codes of processes that work together; once one has failed, the others are ended after a while."""
    while any(process.poll() is None for process in running):
        if any(process.poll() not in (None, 0, INTERRUPTED) for process in running):
            end = time.monotonic() + PATIENCE
            while any(process.poll() is None for process in running) and time.monotonic() < end:
                time.sleep(LOOK)
            for process in running:
                process.terminate()
            break
        time.sleep(LOOK)
    return [process.wait() for process in running]


def worst(codes: Sequence[int]) -> int:
    """The code of a process that failed, else `INTERRUPTED` where one was, else 0.

    Examples:
        >>> worst([0, 130]), worst([130, 1]), worst([0, 0])
        (130, 1, 0)
    """
    return next((code for code in codes if code not in (0, INTERRUPTED)), max(codes))


def run_on_nodes(job: Job, task: Task, resources: dict[str, Any], folder: str, output: str, told: str) -> int:
    """Run a task on several machines at once, each with its share of the processes; returns as `run_here`."""
    ray = imported_ray()
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = {"CPU": resources["num_cpus"]} | ({"GPU": resources["num_gpus"]} if resources["num_gpus"] else {})
    group = placement_group([bundle] * job.nodes, strategy="STRICT_SPREAD")
    running: list[Any] = []
    try:
        ray.get(group.ready())
        spots = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(job.nodes)]
        host, port = ray.get(ray.remote(free_port).options(num_cpus=0, scheduling_strategy=spots[0]).remote())
        for node, spot in enumerate(spots):
            place = Place(node, job.nodes, job.processes, host, port)
            told_where = f"{output}.{node}" if node else output
            start = ray.remote(run_here).options(**resources, max_retries=0, scheduling_strategy=spot)
            running.append(start.remote(list(task.command), place, folder, told_where, told))
        return worst(ray.get(running))
    except BaseException:
        for one in running:  # each stops its processes by a signal, which takes a step's time
            ray.cancel(one)
        ray.wait(running, num_returns=len(running), timeout=120) if running else None
        raise
    finally:
        remove_placement_group(group)


def free_port() -> tuple[str, int]:
    """The address of this machine, and a port that is free on it."""
    ray = imported_ray()
    with socket.socket() as opened:
        opened.bind(("", 0))
        return ray.util.get_node_ip_address(), opened.getsockname()[1]
