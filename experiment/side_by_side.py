"""Several specialties at a time, each in a process of its own that runs the same configuration for its share."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.folders import read_state
from artifacts.gpus import own_gpu
from artifacts.ranks import without_ranks
from experiment.context import ExperimentContext
from experiment.outlook import Outlook, finished
from guards.telling import doing

LOOK_SECONDS = 0.2
"""Time between two looks at the workers."""
TELL_SECONDS = 2.0
"""Time between two looks at how many runs are done."""


def run_side_by_side(context: ExperimentContext, todo: Sequence[str]) -> None:
    """Train specialties in worker processes, each of which runs the same configuration for its share.

    Where there are GPUs each worker sees one of them: the first the first, and so on, round and round.

    Raises:
        RuntimeError: a worker failed; names its specialties and exit code.
    """
    workers = min(context.experiment.workers, len(todo))
    script = Path(__file__).resolve().parent.parent / "train.py"
    command = [sys.executable, str(script), "--config", str(context.path), *context.arguments]
    running = {}
    for worker in range(workers):
        share = todo[worker::workers]
        environment = without_ranks() | own_gpu(worker, context.experiment.trainer)
        own = [f"{context.called}:only={json.dumps(share)}", f"{context.called}:workers=1"]
        own += [f"{member.called}:overwrite=false" for member in context.lineage]  # that was done once, before
        own += ["--part", "train"]  # what is made of finished runs is made here, once, when all are in
        # In a session of its own Ctrl-C reaches it through us alone, once, and it can record where it stood.
        running[" ".join(share)] = subprocess.Popen([*command, *own], start_new_session=True, env=environment)
    try:
        with doing(""):  # the workers speak for themselves
            codes = ended(context, running, todo)
    except BaseException:
        for process in running.values():
            process.terminate()  # not SIGINT, which a job in a shell's background is started deaf to
        for process in running.values():
            process.wait()
        raise
    failed = {share: code for share, code in codes.items() if code != 0}
    if failed:
        raise RuntimeError(
            "training failed in "
            + "; ".join(f"[{share}]: {end_of(code)}" for share, code in failed.items())
            + "; each run's status.json says more"
        )


def ended(context: ExperimentContext, running: Mapping[str, subprocess.Popen], todo: Sequence[str]) -> dict[str, int]:
    """Wait for all workers: specialties of each -> exit code. What a signal ended is recorded at once."""
    codes: dict[str, int] = {}
    outlook, looked = Outlook(context.experiment.name, len(todo)), time.monotonic()
    while len(codes) < len(running):
        time.sleep(LOOK_SECONDS)
        if time.monotonic() - looked >= TELL_SECONDS:
            looked = time.monotonic()
            outlook.tell(finished([read_state(context.folder.run(run).path) for run in todo]))
        for share, process in running.items():
            if share not in codes and (code := process.poll()) is not None:
                codes[share] = code
                if code < 0:
                    record_death(context, share.split(), code)
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


def record_death(context: ExperimentContext, specialties: Sequence[str], code: int) -> None:
    """A worker that a signal ended could not say so itself: its unfinished runs did not go on."""
    for specialty in specialties:
        run = context.folder.run(specialty)
        if read_state(run.path) == "running":
            run.set_status("failed", reason=f"the worker process was {end_of(code)}")
