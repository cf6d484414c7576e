"""Several things at a time, each in a process of its own that runs the same configuration for its part."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from artifacts.folders import RunFolder, read_state
from artifacts.gpus import own_gpu
from artifacts.ranks import without_ranks
from experiment.context import ExperimentContext
from experiment.outlook import Outlook, finished
from guards.telling import doing

LOOK_SECONDS = 0.2
"""Time between two looks at the workers."""
TELL_SECONDS = 2.0
"""Time between two looks at how many runs are done."""


def run_side_by_side(members: Sequence[ExperimentContext], todo: Sequence[str]) -> None:
    """Train specialties in worker processes, each of which runs the same configuration for its share.

    A worker trains what its specialties stand on too, so that none waits for another's.

    Args:
        members: the experiment, last, and before it those beneath whose experts its workers train.
        todo: the specialties.

    Raises:
        RuntimeError: a worker failed; names its specialties and exit code.
    """
    context = members[-1]
    workers = min(context.experiment.workers, len(todo))
    runs = [m.folder.run(one) for m in members for one in todo if one in m.specialties and not m.is_run_complete(one)]
    running: dict[str, subprocess.Popen] = {}
    with ending(running.values()), doing(""):  # the workers speak for themselves
        for worker in range(workers):
            share = todo[worker::workers]
            only = f"{context.called}:only={json.dumps(share)}"
            running[" ".join(share)] = begin(context, worker, only, part="train")  # the rest is made here, once
        codes = ended(context, running, runs)
    failed = {share: code for share, code in codes.items() if code != 0}
    if failed:
        raise RuntimeError(
            "training failed in "
            + "; ".join(f"[{share}]: {end_of(code)}" for share, code in failed.items())
            + "; each run's status.json says more"
        )


@contextmanager
def answered_beside(experiments: Sequence[ExperimentContext], workers: int) -> Iterator[None]:
    """While the block runs, answer in other processes what these experiments ask of their experts and merges.

    They ask whoever is there; a merge that comes later is asked when the others are. Where one fails, that is said, and
    whoever needs the answers asks what is missing.

    Args:
        experiments: whose experts are finished.
        workers: processes, at least 1.
    """
    asking = [one for one in experiments if not (one.folder.evaluation / "matrix.csv").exists()]
    asking = [one for one in asking if any(getattr(callback, "is_shared", False) for callback in one.callbacks())]
    running: dict[str, subprocess.Popen] = {}
    with ending(running.values()):
        for place, context in enumerate(asking):
            own = range(place, workers, len(asking))
            for share, worker in enumerate(own, 1):  # the block has the first GPU
                running[f"{context.experiment.name} {share}"] = begin(context, worker + 1, part=f"{share}/{len(own)}")
        yield
        with doing("examining what the agent was made from"):
            codes = {name: process.wait() for name, process in running.items()}
    for name, code in codes.items():
        if code != 0:
            print(f"{name}: examining beside the training ended early ({end_of(code)}); it goes on now", flush=True)


def begin(context: ExperimentContext, place: int, *own: str, part: str) -> subprocess.Popen:
    """Start a process that runs an experiment's command for part of the work, one thing after another.

    Where there are GPUs it sees one of them: the first place the first, and so on, round and round.
    """
    script = Path(__file__).resolve().parent.parent / "train.py"
    command = [sys.executable, str(script), "--config", str(context.path), *context.arguments, *own]
    command += [f"{member.called}:workers=1" for member in context.lineage]
    command += [f"{member.called}:overwrite=false" for member in context.lineage]  # that was done once, before
    environment = without_ranks() | own_gpu(place, context.experiment.trainer)
    # In a session of its own Ctrl-C reaches it through us alone, once, and it can record where it stood.
    return subprocess.Popen([*command, "--part", part], start_new_session=True, env=environment)


@contextmanager
def ending(processes: Collection[subprocess.Popen]) -> Iterator[None]:
    """Let processes record where they stand, and end, where the block does not come to its end."""
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()  # not SIGINT, which a job in a shell's background is started deaf to
        for process in processes:
            process.wait()
        raise


def ended(
    context: ExperimentContext, running: Mapping[str, subprocess.Popen], runs: Sequence[RunFolder]
) -> dict[str, int]:
    """Wait for all workers: specialties of each -> exit code. What a signal ended is recorded at once."""
    codes: dict[str, int] = {}
    outlook, looked = Outlook(context.experiment.name, len(runs)), time.monotonic()
    while len(codes) < len(running):
        time.sleep(LOOK_SECONDS)
        if time.monotonic() - looked >= TELL_SECONDS:
            looked = time.monotonic()
            outlook.tell(finished([read_state(run.path) for run in runs]))
        for share, process in running.items():
            if share not in codes and (code := process.poll()) is not None:
                codes[share] = code
                if code < 0:
                    record_death([run for run in runs if run.path.name in share.split()], code)
    return codes


def end_of(code: int) -> str:
    """How a worker ended, by its exit code.

    Examples:
        >>> end_of(1), end_of(-9)
        ('exit code 1, the reason stands above', 'killed by SIGKILL; was memory short?')
    """
    if code >= 0:
        return f"exit code {code}, the reason stands above"
    name = signal.Signals(-code).name
    return f"killed by {name}{'; was memory short?' if name == 'SIGKILL' else ''}"


def record_death(runs: Sequence[RunFolder], code: int) -> None:
    """A worker that a signal ended could not say so itself: its unfinished runs did not go on."""
    for run in runs:
        if read_state(run.path) == "running":
            run.set_status("failed", reason=f"the worker process was {end_of(code)}")
