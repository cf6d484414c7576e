"""Commands in children of a process that has imported everything already: what takes seconds then takes none.

A child is as a process of its own, from its first line to its last: own signals, own threads, own exit.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from artifacts.interrupts import as_program

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"train.py": "train", "merge": "merge.__main__", "curation": "curation.__main__",
            "datamodules.check": "datamodules.check.__main__", "settings": "tests.campaigns.settings_of"}  # fmt: skip
"""What is run -> the module whose `main` takes the arguments."""

PACKAGES = ("answering", "artifacts", "callbacks", "configs", "curation", "datamodules", "evaluation", "experiment",
            "lightning_modules", "merge")  # fmt: skip
FURTHER = ("train", "matplotlib.backends.backend_agg", "tests.campaigns.nano")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; below 0 the signal that ended it."""
    output: str
    """Both streams, in the order of writing."""
    seconds: float
    hung: bool = False
    """It had to be ended, because its time was up."""


def preload(packages: Sequence[str] = PACKAGES, further: Sequence[str] = FURTHER) -> None:
    """Import what the programs import, and start no thread."""
    for path in sorted(path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")):
        import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    for name in further:
        import_module(name)


def started(
    words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None, output: str = "output"
) -> tuple[int, Path]:
    """Start a command.

    Args:
        words: the program, one of `PROGRAMS`, and its arguments.
        folder: where it runs.
        prepare: called in the child before its program.
        output: name of the file in `folder` that both streams go to.

    Returns:
        The child's process number, and the file of its output.
    """
    path = folder / output
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child, path
    code = 70
    try:
        code = _live(words, folder, path, prepare)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _live(words: Sequence[str], folder: Path, path: Path, prepare: Callable[[], None]) -> int:
    os.setsid()
    os.chdir(folder)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ["GIT_DIR"] = os.devnull  # whoever edits the checkout meanwhile shall not change what is compared
    sys.argv = list(words)
    try:
        prepare()
        as_program(lambda: import_module(PROGRAMS[words[0]]).main(list(words[1:])))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException as error:
        traceback.print_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    return int(code or 0)


def finished(
    child: int,
    path: Path,
    *,
    patience: float,
    at: float | None = None,
    number: int = 9,
    progress: Callable[[], None] = lambda: None,
) -> Ended:
    """Wait for a command.

    Args:
        child: as `started` gave it.
        path: as `started` gave it.
        patience: seconds after which it counts as hung, and is killed with all that it started.
        at: seconds after which it is sent a signal.
        number: of that signal; SIGKILL if not given.
        progress: called every ten seconds.
    """
    begun, hung, told = time.monotonic(), False, 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now = time.monotonic() - begun
        if at is not None and now >= at:
            os.kill(child, number)
            at = None
        if now > patience:
            hung = True
            os.killpg(child, signal.SIGKILL)
        if now - told > 10:
            told = now
            progress()
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, path.read_text("utf-8", errors="replace"), time.monotonic() - begun, hung)


def run(words: Sequence[str], folder: Path, *, patience: float = 300) -> Ended:
    """Start a command and wait for its end."""
    return finished(*started(words, folder), patience=patience)
