"""A run that goes on beyond its end: what is recorded of it.

    {"from_step": 160, "to_step": 320, "schedule": "...", "time": "...", "git": {"commit": ..., "dirty": ...}}

Choice: the schedule is that of the new length. From the step reached on, the learning rate is what a run of the new
    length has there, so that a cosine that had come down rises again to where the longer one stands; what was trained
    on the shorter schedule stays. Where the schedule does not depend on the length (constant, with a warm-up in steps),
    the extended run is the longer one, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.folders import RunFolder
from experiment.provenance import git_state


def continuation(from_step: int, to_step: int, runs_dir: Path) -> dict[str, Any]:
    """The record of one continuation, in optimiser steps."""
    return {
        "from_step": from_step,
        "to_step": to_step,
        "schedule": f"planned anew: from step {from_step} on, the learning rate of a run of {to_step} steps",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": git_state(runs_dir=runs_dir),
    }


def continuations(run: RunFolder, before: Mapping[str, Any], steps: int, runs_dir: Path) -> list[dict[str, Any]]:
    """The continuations of a run that is about to start, or to go on.

    Args:
        run: its folder.
        before: its provenance so far.
        steps: that it shall have.
        runs_dir: folder of results.
    """
    if not run.checkpoint.exists():
        return []  # begins anew
    found = list(before.get("continuations", []))
    if before.get("steps", steps) < steps:
        found.append(continuation(checkpoint_step(run.checkpoint), steps, runs_dir))
    return found


def checkpoint_step(path: Path) -> int:
    """Optimiser steps done at a checkpoint.

    Raises:
        DamagedError: the file is damaged.
    """
    return int(Checkpoints().load_checkpoint(path)["global_step"])
