"""What lies where on disk, and writing that is all or nothing.

Below runs/<experiment>/ lie:

    experiment.json       the settings this folder belongs to
    status.json           submitted, finished, interrupted or failed, and in which phase
    jobs/                 scripts and output of what a launcher started
    <specialty>/          events, checkpoints/, adapter/ or base/, status.json, ...; or agent/, of one run over all
    layout/               the order of TensorBoard's charts
    merged/<method>/      adapter/, recipe.yaml, conflict report
    evaluation/           cells/, predictions.jsonl, scores.json, matrix.csv
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from artifacts.durable import remove_left_behind, write_text
from artifacts.ranks import is_first

STATUS = "status.json"
LAST = "last.ckpt"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that has no locks."""
LAUNCHED_AS = "LAUNCHED_AS"
"""Variable that a launcher says in of which of its jobs a process is part."""
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What a folder says that is read-only, or another user's."""


def write_status(folder: Path, state: str, **fields: Any) -> None:
    """Record the state of a run or of an experiment in its folder's status.json; the first process does."""
    if not is_first():
        return
    status = {"state": state, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pid": os.getpid(), **fields}
    if launched_as := os.environ.get(LAUNCHED_AS):
        status["job"] = launched_as
    write_text(folder / STATUS, json.dumps(status, indent=2) + "\n")


def write_failure(folder: Path, error: BaseException, **fields: Any) -> None:
    """Record an interruption or a failure; where even that cannot be written, the error itself is what counts."""
    state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    with suppress(OSError):
        write_status(folder, state, reason=f"{type(error).__name__}: {error}", **fields)


def read_state(folder: Path) -> str:
    """The recorded state, empty where none is."""
    try:
        return str(json.loads((folder / STATUS).read_text())["state"])
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
        return self.path / "checkpoints" / LAST

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
def locked(folder: Path, waiting_for: str, *, below: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold a folder's lock; processes that find it taken wait. The lock dies with its process.

    What killed processes left in the folder is removed. A folder that this process cannot write into is not locked:
    to read what is finished there takes no lock, and everything else fails by itself.

    Args:
        folder: what is locked, by a file `.lock` inside it.
        waiting_for: what to tell the user while waiting.
        below: whether all that lies below the folder is under its lock.
        shared: let others in that ask for the same; nothing is removed then, as it may be theirs.

    Raises:
        OSError: the folder cannot be made, or its file system has no locks.
    """
    file = lock_file(folder)
    if file is None:
        yield
        return
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process works on {waiting_for} ({folder}); waiting for it", flush=True)
            fcntl.flock(file, kind)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            message = (
                f"{error.strerror}: the file system has no locks, without which two processes could write there at "
                "once; set runs_dir to a folder on another one, or mount it with locks (for NFS: not `nolock`)"
            )
            raise OSError(error.errno, message, file.name) from error
        if not shared:
            remove_left_behind(folder, below=below)
        yield


def lock_file(folder: Path) -> IO[str] | None:
    """The file that a folder is locked by; None where the folder stands and cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / ".lock", "a+")  # NFS wants it readable for a shared lock, writable for the other
    except OSError as error:
        if error.errno in NOT_WRITABLE and folder.is_dir():
            return None
        raise
