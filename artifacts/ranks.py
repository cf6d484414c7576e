"""Which of several processes of one run this is, told by what their launcher set; files and locks are the first's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Variables of Lightning's launcher, torchrun and SLURM; in the first process none of them is above 0."""
OF_A_GROUP = (*RANKS, "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a process outside of the group must not inherit."""


def is_first() -> bool:
    """Whether this process writes: the only one of its run, or the first of several."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def started_together() -> bool:
    """Whether a launcher started several processes at once, instead of the first one starting the others."""
    by_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1 and "SLURM_PROCID" in os.environ
    return by_srun or (int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ)


def without_ranks() -> dict[str, str]:
    """The environment for a process that is no part of this one's group."""
    return {name: value for name, value in os.environ.items() if name not in OF_A_GROUP}


def wait_for_first(done: Callable[[], bool], seconds: float = 0.5) -> None:
    """Wait until the first process has done something alone.

    Args:
        done: asked every so often.
        seconds: between two questions.

    Raises:
        RuntimeError: the process that started this one is gone.
    """
    parent = os.getppid()
    while not done():
        if os.getppid() != parent:
            raise RuntimeError("the process that started this one has ended before its work was done")
        time.sleep(seconds)


def let_first_leave(most_seconds: float = 30.0) -> None:
    """Outlive the process that started this one: it would take an end with an error code for a crash, and be killed."""
    parent, end = os.getppid(), time.monotonic() + most_seconds
    while not is_first() and not started_together() and os.getppid() == parent and time.monotonic() < end:
        time.sleep(0.05)
