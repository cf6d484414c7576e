"""Signals wait for a safe point: between two steps nothing is half done, and no lock of a writer's thread is held."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a scheduler's end of time, a closed terminal: all mean to stop, and to go on later."""


def heeded() -> list[signal.Signals]:
    """The signals that this process was not started deaf to (by nohup, say); none outside its main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def stop_alike() -> None:
    """Let every signal of `SIGNALS` do what Ctrl-C does: raise KeyboardInterrupt where the program stands.

    Where it stands in a `__del__`, the signal comes again a little later: Python prints what a `__del__` raises, and
    goes on. A long garbage collection ends in one as a rule, so that this is no rare place.
    """
    for number in heeded():
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    above = frame
    while above is not None and above.f_code.co_name != "__del__":
        above = above.f_back
    if above is None:
        raise KeyboardInterrupt
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def as_program(main: Callable[[], int]) -> NoReturn:
    """Run a program's main function; a signal before its work began, or after it ended, leaves no traceback.

    Args:
        main: does everything, and returns the exit code.

    Raises:
        SystemExit: with that code, or 130 after an interrupt that `main` did not tell of itself.
    """
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    for number in heeded():
        signal.signal(number, signal.SIG_DFL)  # nothing is left to do but to leave
    sys.exit(code)


class Waiting:
    """Tells whether a signal is waiting, when it is called; whoever asks stops at the next safe point."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.before = {number: signal.getsignal(number) for number in heeded()}

    def __call__(self) -> bool:
        """Whether a signal is waiting."""
        return bool(self.signals)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the second one strikes."""
        if self.signals:
            raise KeyboardInterrupt
        self.signals.append(number)
        print("\nstopping at the end of this step; once more to stop at once", flush=True)

    def take(self) -> None:
        """Hear the signals, also after others have put their own handlers in place."""
        for number in self.before:
            signal.signal(number, self.note)

    def give_back(self) -> None:
        """Restore the handlers that were found."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Waiting]:
    """Hold the first signal back, so that it does not strike in the middle of a write; a second one strikes at once.

    Yields:
        What tells whether a signal is waiting.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal is still waiting.
    """
    waiting = Waiting()
    waiting.take()
    try:
        yield waiting
    finally:
        waiting.give_back()
    if waiting():
        raise KeyboardInterrupt
