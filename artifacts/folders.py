"""What lies where on disk, and writing that is all or nothing.

Below runs/<experiment>/ lie:

    experiment.json       the settings this folder belongs to
    status.json           finished, interrupted or failed, and in which phase
    <specialty>/          events, checkpoints/, adapter/ or base/, status.json, ...
    layout/               the order of TensorBoard's charts
    merged/<method>/      adapter/, recipe.yaml, conflict report
    evaluation/           cells/, predictions.jsonl, scores.json, matrix.csv
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.durable import write_text
from artifacts.ranks import is_first


def write_status(folder: Path, state: str, **fields: Any) -> None:
    """Record the state of a run or of an experiment in its folder's status.json; the first process does."""
    if not is_first():
        return
    status = {"state": state, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pid": os.getpid(), **fields}
    write_text(folder / "status.json", json.dumps(status, indent=2) + "\n")


def write_failure(folder: Path, error: BaseException, **fields: Any) -> None:
    """Record an interruption or a failure; where even that cannot be written, the error itself is what counts."""
    state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    with suppress(OSError):
        write_status(folder, state, reason=f"{type(error).__name__}: {error}", **fields)


def read_state(folder: Path) -> str:
    """The recorded state, empty where none is."""
    try:
        return str(json.loads((folder / "status.json").read_text())["state"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""


@dataclass(frozen=True)
class RunFolder:
    """One `Trainer.fit`: one specialty of one experiment."""

    path: Path

    @property
    def adapter(self) -> Path:
        """The finished expert; complete if and only if its manifest is there."""
        return self.path / "adapter"

    @property
    def base(self) -> Path:
        """The finished base weights of a base-training run."""
        return self.path / "base"

    @property
    def checkpoint(self) -> Path:
        """State of an interrupted run."""
        return self.path / "checkpoints" / "last.ckpt"

    def set_status(self, state: str, **fields: Any) -> None:
        """Record what the run is doing: running, finished, interrupted or failed."""
        write_status(self.path, state, **fields)


@dataclass(frozen=True)
class ExperimentFolder:
    """All runs of one experiment, their merge and their evaluation."""

    path: Path

    def run(self, specialty: str) -> RunFolder:
        """The folder of one specialty's run."""
        return RunFolder(self.path / specialty)

    def merged(self, method: str) -> Path:
        """The folder of one merged agent."""
        return self.path / "merged" / method

    @property
    def evaluation(self) -> Path:
        """The folder of predictions, scores and the matrix."""
        return self.path / "evaluation"

    def clear(self) -> None:
        """Remove every run, merge and evaluation; the lock stays."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    @property
    def settings(self) -> Path:
        """The resolved settings that everything in this folder was made with."""
        return self.path / "experiment.json"


@contextmanager
def locked(folder: Path, waiting_for: str) -> Iterator[None]:
    """Hold a folder's lock; processes that find it taken wait. The lock dies with its process.

    Args:
        folder: what is locked, by a file `.lock` inside it.
        waiting_for: what to tell the user while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process works on {waiting_for} ({folder}); waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
