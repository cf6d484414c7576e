"""Signals at chosen moments: the n-th time that a process touches a file, whatever part of the program does it.

What counts are openings for writing, flushes to disk, renames, links, removals and new folders. Random times miss the
short windows between two of them; these do not. Product code knows nothing of this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "CAMPAIGN_STRIKE"
"""Tells a worker process, which starts from nothing, when to strike; `site/sitecustomize.py` reads it."""
MOMENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Strike:
    """A signal to oneself."""

    moment: int
    """Which touch of a file it comes before, from 1; 0 for none: they are counted, and that is all."""
    number: int = signal.SIGKILL
    """Of the signal."""
    below: str = ""
    """Folder whose files count."""
    only: str = ""
    """Word that the process's arguments must hold; empty takes every process."""
    tally: str = ""
    """File that gets a byte for each touch; empty counts nothing."""

    def inherit(self) -> None:
        """Let the processes that this one starts strike, instead of this one."""
        os.environ[VARIABLE] = json.dumps(asdict(self))
        own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))

    def arm(self) -> None:
        """Strike in this process when the moment comes."""
        if self.only and not any(self.only in word for word in sys.orig_argv):
            return
        owner, count, inside = os.getpid(), 0, False

        def touched(path: Any) -> None:
            nonlocal count, inside
            if inside or os.getpid() != owner or not self._counts(path):
                return
            count += 1
            if self.tally:
                inside = True
                with open(self.tally, "ab") as file:
                    file.write(b".")
                inside = False
            if count == self.moment:
                os.kill(owner, self.number)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
            if opened or event in MOMENTS:
                touched(arguments[0])

        def synced(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            touched(path)
            fsync(descriptor)

        fsync, os.fsync = os.fsync, synced  # no audit event tells of it
        sys.addaudithook(hook)

    def _counts(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.below)
